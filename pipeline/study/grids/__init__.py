"""Leaves: one file a grid, a function of (datasets, seeds, preset) that lists fine-tuning runs and their places."""
