"""How raw files are opened, checked and decoded, format by format. `pipeline.data.images` is their only user."""
