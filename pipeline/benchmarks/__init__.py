"""The benchmarks, one plugin each: a module with `TITLE` (one line) and `run(settings) -> list[Table]`."""

from pipeline.core.plugins import Plugins

BENCHMARKS = Plugins(__name__)
