"""Parts of one step in a process of their own: `python -m pipeline.benchmarks.gpu.worker PARENT STEP PROGRAMME PART …`.

PARENT is the process that starts this one, by its id: it may be gone before everything here is imported.

The page is written after each part, so that it holds what is known whenever the machine goes away.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback

import torch

from pipeline.benchmarks.gpu import page
from pipeline.benchmarks.gpu.programme import Programme, Unfinished
from pipeline.benchmarks.gpu.steps import STEPS, current, from_json
from pipeline.core import files

FATAL = ("AcceleratorError", "CUDA error", "device-side assert", "cannot be captured", "OutOfMemoryError")
"""Of an error after which the process has lost the GPU, or would measure the next part in a state that nobody knows."""


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
                page.write(programme)
                return 1
        else:
            programme.write(name, part, {**found, "took": round(time.monotonic() - started, 1)})
        page.write(programme)
        gc.collect()  # the next part, or a process that it starts, needs the GPU's memory
        torch.cuda.empty_cache()
    current(programme, name).unlink(missing_ok=True)
    return 0


def end_with_parent(parent: int) -> None:
    """End this process and all that it started when the process that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, args=(int(sys.argv[1]),), daemon=True).start()
    sys.exit(work(sys.argv[2], from_json(sys.argv[3]), sys.argv[4:]))
