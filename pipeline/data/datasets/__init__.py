"""Leaves: one file a dataset, from its raw files to records."""
