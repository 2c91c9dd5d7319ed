"""What everything rests on; nothing here knows of images, training or clusters."""
