"""The progress of a launch that stays, on a terminal or in a log."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence

from pipeline.core.console import counted, duration, visible
from pipeline.jobs.plan import Plan
from pipeline.runs.folder import Run

TERMINAL_SECONDS = 1.0  # between two drawings of the same states
LOG_SECONDS = 180.0  # between two lines of progress of a run in a log
BAR = 30  # characters


class LaunchProgress:
    """A bar of finished runs and a line for each working run on a terminal; a plain line now and then in a log."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.shown_at = time.monotonic()
        self.terminal = sys.stdout.isatty()
        self.drawn = 0

    def show(self, plan: Plan) -> None:
        """Print the runs whose state changed, and draw the progress again if the last time was long ago."""
        now = time.monotonic()
        changed = self._changes(plan)
        due = now - self.shown_at >= (TERMINAL_SECONDS if self.terminal else LOG_SECONDS)
        if changed and not self.terminal:
            self.say(changed)
        if not due and not (changed and self.terminal):
            return
        self.shown_at = now
        lines = [f"{planned.name}: {_position(planned.run)}" for planned in plan.in_state("running")]
        done, total = len(plan.in_state("done")), len(plan.runs)
        whole = f"{done} of {counted(total, 'run')} done"
        self.say(changed if self.terminal else [*lines, whole])
        if not self.terminal:
            return
        filled = round(BAR * done / total)
        lines.append(f"[{'#' * filled}{'.' * (BAR - filled)}] {whole}")
        width = shutil.get_terminal_size().columns - 1  # a wrapped line would be erased in part only
        print("\n".join(line[:width] for line in lines), flush=True)
        self.drawn = len(lines)

    def say(self, lines: Sequence[str]) -> None:
        """Print lines that stay, each with the time in a log."""
        self.close()
        stamp = "" if self.terminal else time.strftime("%Y-%m-%d %H:%M:%S  ")
        for line in lines:
            print(stamp + visible(line), flush=True)

    def close(self) -> None:
        """Erase what is drawn on the terminal."""
        if self.terminal and self.drawn:
            print(f"\x1b[{self.drawn}F\x1b[J", end="")
            self.drawn = 0

    def _changes(self, plan: Plan) -> list[str]:
        """A line for each run whose state changed since the last call."""
        out = []
        for planned in plan.runs.values():
            run, state = planned.run, planned.state
            before = self.states.get(run.id)
            if (before != state) if before else (state == "running"):
                out.append(f"{state:12} {planned.name} {run.reason()[:100]}".rstrip())
            self.states[run.id] = state
        return out


def _position(run: Run) -> str:
    """`epoch 2/3, step 40/149, 36 images a second, 4 min left at most`."""
    at = run.progress()
    if not at:
        return "starting"
    left = f", {duration(at['eta_seconds'])} left at most" if at["eta_seconds"] else ""
    return (
        f"epoch {at['epoch'] + 1}/{at['epochs']}, step {at['step']}/{at['steps']}, "
        f"{at['images_per_second']:.0f} images a second{left}"
    )
