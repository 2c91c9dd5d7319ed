"""Benchmarks, one leaf each: ours beside the peers and the limit measured in the same run."""
