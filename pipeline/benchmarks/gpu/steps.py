"""The steps, and one step's parts in a process of their own: `python -m pipeline.benchmarks.gpu.steps STEP PROGRAMME`.

The programme is a JSON object; parts that have a result are passed over.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from pipeline.benchmarks.gpu import exactness, machine, sharing, speed, table5
from pipeline.benchmarks.gpu.programme import Programme, Step, Unfinished
from pipeline.core import files

MODULES: Mapping[str, ModuleType] = {
    "machine": machine,
    "exactness": exactness,
    "speed": speed,
    "sharing": sharing,
    "table5": table5,
}
STEPS = cast("Mapping[str, Step]", MODULES)
"""In the order of what they are worth."""
FATAL = ("AcceleratorError", "CUDA error", "device-side assert")  # after them the process has lost the GPU
PATHS = ("scratch", "raw", "out", "wheels", "weights")


def to_json(programme: Programme) -> str:
    return json.dumps(asdict(programme), default=str)


def from_json(text: str) -> Programme:
    value: dict[str, Any] = json.loads(text)
    return Programme(**value | {name: Path(value[name]) if value[name] else None for name in PATHS})


def current(programme: Programme, step: str) -> Path:
    """The file that names the part at work."""
    return programme.out / step / "current.txt"


def work(name: str, programme: Programme, parts: list[str]) -> int:
    """Do these parts of a step; 0 when each has a result, 1 when the process can do no more, 75 when it was stopped."""
    step = STEPS[name]
    for part in parts:
        files.write_text(current(programme, name), part)
        print(f"{name}: {part}", file=sys.stderr, flush=True)
        started = time.monotonic()
        try:
            found = step.run(programme, part)
        except Unfinished:
            return 75
        except Exception as error:
            traceback.print_exc()
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            programme.write(name, part, {"error": text})
            if any(mark in f"{type(error).__name__} {error}" for mark in FATAL):
                return 1
        else:
            programme.write(name, part, {**found, "took": round(time.monotonic() - started, 1)})
    current(programme, name).unlink(missing_ok=True)
    return 0


def end_with_parent(parent: int) -> None:
    """End this process and all that it started when the process that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    sys.exit(work(sys.argv[1], from_json(sys.argv[2]), sys.argv[3:]))
