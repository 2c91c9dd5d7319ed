"""The lowest layer, used by all others: it knows nothing of images, training or clusters."""
