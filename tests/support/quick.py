"""A command of ours that asks Slurm's queue every second instead of every ten: python -m quick launch ARGUMENTS."""

from __future__ import annotations

import importlib
import sys

from pipeline.core.console import run_command
from pipeline.jobs.slurm import waiting

if __name__ == "__main__":
    waiting.POLL_SECONDS, waiting.QUEUE_POLLS = 0.5, 2
    run_command(importlib.import_module(f"pipeline.{sys.argv.pop(1)}").main)
