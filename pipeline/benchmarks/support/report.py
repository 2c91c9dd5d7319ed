"""Run a benchmark, print its tables and write them as JSON."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from pipeline.benchmarks import BENCHMARKS
from pipeline.benchmarks.support.measure import Settings
from pipeline.core import files


def run_and_report(name: str, settings: Settings, out: Path) -> None:
    """Run the benchmark `name`, print its tables and write them to a JSON file in the folder `out`."""
    benchmark = BENCHMARKS.find(name)
    print(f"{name}: {benchmark.TITLE}", flush=True)
    started = time.monotonic()
    tables = benchmark.run(settings)
    for table in tables:
        print(f"\n{table.to_text()}", flush=True)
    path = out / f"{name}{'-quick' * settings.quick}.json"
    value = {"bench": name, "quick": settings.quick, "seconds": time.monotonic() - started, **machine()}
    files.write_json(path, {**value, "tables": [table.to_json() for table in tables]})
    print(f"\nwritten: {path}\n", flush=True)


def machine() -> dict[str, Any]:
    """The date, the hardware and the library versions of a measurement."""
    import torch  # here: a benchmark that needs no torch must not start with it

    from pipeline.jobs.snapshot import library_versions
    from pipeline.learn.hardware import cpu_model

    gpu = torch.cuda.is_available()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "libraries": library_versions("cuda" if gpu else "cpu"),
    }
