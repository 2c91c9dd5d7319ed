"""Code that the benchmarks share: measuring, tables, the report, raw images, timed training, peers."""
