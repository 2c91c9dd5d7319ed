"""What a step of every program asks of a GPU that is only pretended: one table, without GPU, weights or data."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.core import files
from pipeline.core.console import counted, progress, table
from pipeline.rehearsal.steps import Step, rehearse_step
from pipeline.runs.spec import DatasetRef, Spec
from pipeline.study import paper, recipes

TITLE = "a step of every program, backbone and precision on a GPU that is only pretended"
PROGRAMS = ("cass", "cass_vc", "dino", "dino_fb", "finetune")
PRECISIONS = ("float32", "float16", "bfloat16")
PARTS = ("augmentation", "forward", "backward", "optimizer", "after the step")
HEADER = ("program", "backbone", "precision", "launches", *PARTS, "waits", "uploads", "pinned MB", "peak GB", "s")
REF = DatasetRef(name="made_up", fingerprint="0" * 16)
PRESET = paper.preset("paper")
DINOS = {"dino": recipes.VIT_PYTORCH, "dino_fb": recipes.FACEBOOK}

Case = tuple[str, paper.Backbone, str]
"""Program, backbone and precision."""


def cases() -> list[Case]:
    """Every program with every backbone of the paper that it takes, in every precision."""
    out = []
    for program in PROGRAMS:
        for backbone in paper.BACKBONES:
            if not (program == "dino_fb" and backbone is paper.SWIN_B):  # Swin takes no small crops
                out += [(program, backbone, precision) for precision in PRECISIONS]
    return out


def some_cases() -> list[Case]:
    """Every program with the paper's standard networks, and a fine-tune of each backbone, in float16."""
    standard = [(program, backbone) for program in PROGRAMS[:-1] for backbone in paper.STANDARD]
    return [(*case, "float16") for case in (*standard, *(("finetune", backbone) for backbone in paper.BACKBONES))]


def spec_of(
    program: str, backbone: paper.Backbone, standard: Sequence[paper.Backbone] = paper.STANDARD, **size: int
) -> Spec:
    """The paper's run of a program with a backbone; CASS pairs it with the standard one of the other kind.

    `size`: of a DINO, `image_size` and `batch_size` where they are not the paper's; its crops depend on them.
    """
    if program == "finetune":
        return recipes.finetune(REF, backbone, preset=PRESET, seed=77)
    if program in DINOS:
        size = {"image_size": paper.IMAGE_SIZE, "batch_size": paper.PRETRAIN_BATCH, **size}
        return recipes.dino(REF, backbone, DINOS[program], preset=PRESET, seed=77, **size)
    pair = (standard[0], backbone) if backbone.role == paper.TRANSFORMER else (backbone, standard[1])
    if program == "cass":
        return recipes.cass(REF, pair, preset=PRESET, seed=77)
    return recipes.cass_vc(REF, pair, seed=77)


def row(case: Case, step: Step, seconds: float) -> tuple[str, ...]:
    """The table's row of one step."""
    program, backbone, precision = case
    numbers = [sum(step.launches.values()), *(step.launches.get(part, 0) for part in PARTS)]
    numbers += [sum(step.seen.waits.values()), sum(step.seen.uploads.values())]
    sizes = (f"{step.pinned / 1e6:.1f}", f"{step.peak_bytes / 1e9:.2f}", f"{seconds:.1f}")
    return (program, backbone.title, precision, *map(str, numbers), *sizes)


def text(rows: Sequence[Sequence[str]]) -> str:
    """The rows as one table."""
    return table(rows, header=HEADER)


def rows_of(wanted: Sequence[Case]) -> Iterator[tuple[str, ...]]:
    """Rehearse step after step; some seconds each."""
    for case in progress(wanted, total=len(wanted), what="steps"):
        program, backbone, precision = case
        started = time.monotonic()
        step = rehearse_step(spec_of(program, backbone), precision=precision)
        yield row(case, step, time.monotonic() - started)


def run_rehearsal(out: Path, *, quick: bool) -> None:
    """Print the table and write it as JSON; `quick`: of some of the cases."""
    started = time.monotonic()
    rows = list(rows_of(some_cases() if quick else cases()))
    print(f"{TITLE}\n\n{text(rows)}\n{counted(len(rows), 'step')} in {time.monotonic() - started:.0f} s")
    path = out / f"rehearsal{'-quick' * quick}.json"
    files.write_json(path, {"bench": "rehearsal", "quick": quick, "header": HEADER, "rows": rows})
    print(f"written: {path}")
