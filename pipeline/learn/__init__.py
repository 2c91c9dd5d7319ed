"""Everything that trains: augmentation, backbones, losses, the one loop and its checkpoints."""
