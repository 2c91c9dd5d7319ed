"""Images: decoding, splitting, writing shards, reading them back."""
