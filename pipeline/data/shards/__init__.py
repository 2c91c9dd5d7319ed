"""Shards: raw images written once to tars with an index and a manifest, and read back."""
