"""Runs in the trackers that people use: read from the run folders, kept equal to them, never sent twice."""
