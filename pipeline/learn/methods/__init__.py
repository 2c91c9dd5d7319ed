"""Leaves: one file a self-supervised method."""
