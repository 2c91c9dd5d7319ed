"""What a step of every program asks of a GPU that is only pretended: one table, without GPU, weights or data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import rehearsal
from pipeline.core import files
from pipeline.core.console import counted, progress, table
from pipeline.jobs.snapshot import code_version, library_versions
from pipeline.rehearsal.steps import Step, rehearse_step
from pipeline.runs.spec import DatasetRef, Spec
from pipeline.study import paper, recipes

TITLE = "a step of every program, backbone and precision on a GPU that is only pretended"
PROGRAMS = ("cass", "cass_vc", "dino", "dino_fb", "finetune")
PRECISIONS = ("float32", "float16", "bfloat16")
PARTS = ("augmentation", "forward", "backward", "replay", "optimizer", "after the step")
COUNTS = ("launches", *PARTS, "captured", "waits", "uploads")
HEADER = ("program", "backbone", "precision", *COUNTS, "pinned MB", "peak GB", "s")
REF = DatasetRef(name="made_up", fingerprint="0" * 16)
PRESET = paper.preset("paper")
DINOS = {"dino": recipes.VIT_PYTORCH, "dino_fb": recipes.FACEBOOK}


class Case(NamedTuple):
    """One step."""

    program: str
    backbone: paper.Backbone
    precision: str
    graphs: bool = False
    """Whether its passes are replayed as a CUDA graph."""

    @property
    def words(self) -> tuple[str, str, str]:
        """How the table names it."""
        return self.program, self.backbone.title, self.precision + ", CUDA graph" * self.graphs


def takes(program: str, backbone: paper.Backbone) -> bool:
    """Whether the program is rehearsed with the backbone: Swin takes no small crops, and both of the standard networks
    make the same pair."""
    if program == "dino_fb":
        return backbone is not paper.SWIN_B
    return program in ("dino", "finetune") or backbone is not paper.STANDARD[0]


def cases() -> list[Case]:
    """Every program with every backbone of the paper that it takes, in every precision; then CUDA graphs."""
    pairs = [(program, backbone) for program in PROGRAMS for backbone in paper.BACKBONES if takes(program, backbone)]
    graphed = [Case(*pair, "float16", graphs=True) for pair in pairs if pair[1] in paper.STANDARD]
    return [*(Case(*pair, precision) for pair in pairs for precision in PRECISIONS), *graphed]


def some_cases() -> list[Case]:
    """Every program with the standard networks, a fine-tune of each backbone, and a graph of CASS, in float16."""
    graph = Case("cass", paper.STANDARD[1], "float16", graphs=True)
    every = [case for case in cases() if case.precision == "float16" and not case.graphs]
    return [*(case for case in every if case.program == "finetune" or case.backbone in paper.STANDARD), graph]


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
    """The table's row of one step; what a graph keeps in memory is not seen at its replay."""
    numbers = [sum(step.launches.values()), *(step.launches.get(part, 0) for part in PARTS), step.captured]
    numbers += [sum(step.seen.waits.values()), sum(step.seen.uploads.values())]
    peak = "–" if case.graphs else f"{step.peak_bytes / 1e9:.2f}"
    sizes = (f"{step.pinned / 1e6:.1f}", peak, f"{seconds:.1f}")
    return (*case.words, *map(str, numbers), *sizes)


def text(rows: Sequence[Sequence[str]]) -> str:
    """The rows as one table."""
    return table(rows, header=HEADER)


def rehearse(case: Case) -> tuple[str, ...]:
    """The row of a step; some seconds."""
    started = time.monotonic()
    spec = spec_of(case.program, case.backbone)
    step = rehearse_step(spec, precision=case.precision, cuda_graphs=case.graphs)
    return row(case, step, time.monotonic() - started)


def run_rehearsal(out: Path, *, quick: bool) -> None:
    """Print the table; `quick`: of some of the cases.

    Each row is written as soon as it is known; another call with the same code and libraries takes it as it is.
    """
    wanted = some_cases() if quick else cases()
    path = out / "rehearsal.json"
    files_read = [*sorted(Path(rehearsal.__file__).parent.glob("*.py")), Path(__file__)]
    sources = b"".join(source.read_bytes() for source in files_read)
    of: dict[str, Any] = {"bench": "rehearsal", "code": code_version(), "libraries": library_versions()}
    of["rehearsal"] = files.sha256_bytes(sources)[:12]
    rows = earlier(path, of)
    left = [case for case in wanted if case.words not in rows]
    for case in progress(left, total=len(left), what="steps"):
        rows[case.words] = rehearse(case)
        files.write_json(path, {**of, "header": HEADER, "rows": list(rows.values())})
    found = [rows[case.words] for case in wanted]
    seconds = sum(float(row[-1]) for row in found)
    print(f"{TITLE}\n\n{text(found)}\n{counted(len(found), 'step')} in {seconds:.0f} s\nwritten: {path}")


def earlier(path: Path, of: dict[str, Any]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """The rows that an earlier call wrote, by what they are of; none of other code or libraries."""
    if not path.exists():
        return {}
    before = files.read_json(path, dict)
    if any(before.get(name) != value for name, value in of.items()) or before.get("header") != list(HEADER):
        return {}
    return {tuple(row[:3]): tuple(row) for row in before["rows"]}
