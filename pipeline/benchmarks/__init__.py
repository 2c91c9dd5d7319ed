"""The benchmarks, one plugin each: a module with TITLE and run(bench)."""

from pipeline.core.plugins import Plugins

BENCHMARKS = Plugins(__name__)
