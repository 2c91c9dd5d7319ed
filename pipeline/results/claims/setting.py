"""What a grid lacks of the setting in which the paper makes a claim: its scale, datasets, seeds, complete cells, and
runs that did not collapse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.core.console import counted
from pipeline.jobs.plan import Plan
from pipeline.results.collect import Cell
from pipeline.runs.identity import run_id, without_seed
from pipeline.runs.result import Result
from pipeline.runs.spec import FinetuneSpec, PretrainSpec
from pipeline.study import paper
from pipeline.study.experiments import EXPERIMENTS, entries_of


def lacking(plan: Plan, cells: Sequence[Cell], datasets: Iterable[str], *, collapse: bool = True) -> tuple[str, ...]:
    """What these cells lack of the paper's setting, in words.

    datasets: those of which the paper claims it. collapse: whether a collapsed pretraining run counts.
    """
    out = [*_scale(plan, cells), *_datasets(plan, cells, datasets), *_seeds(cells)]
    return (*out, *(_collapsed(plan, cells) if collapse else ()))


def _scale(plan: Plan, cells: Sequence[Cell]) -> list[str]:
    """Whether the runs are the paper's, to the last setting; where not, what differs most visibly."""
    experiments = [name for name in dict.fromkeys(cell.experiment for cell in cells) if name in EXPERIMENTS]
    entries = entries_of(*experiments)(plan.datasets, (0,), paper.preset("paper"))
    wanted = {run_id(without_seed(entry.spec)) for entry in entries}
    others = [cell.spec for cell in cells if run_id(without_seed(cell.spec)) not in wanted]
    if not others:
        return []
    out = []
    if sizes := sorted({spec.image_size for spec in others} - {paper.IMAGE_SIZE}):
        out.append(f"images of {' and '.join(map(str, sizes))} pixels, not {paper.IMAGE_SIZE}")
    if {spec.backbone for spec in others} - {backbone.tag for backbone in paper.BACKBONES}:
        out.append("smaller networks")
    if {spec.weights for spec in others} != {"imagenet"} and "initialisation" not in experiments:
        out.append("other start weights")
    if plan.preset.name != "paper":
        out.append(f"preset {plan.preset.name}")
    lengths = {spec.pretrain.epochs for spec in others if spec.pretrain}
    if "epochs" not in experiments and (short := sorted(lengths - {paper.PRETRAIN_EPOCHS})):
        out.append(f"{' and '.join(map(str, short))} epochs of pretraining, not {paper.PRETRAIN_EPOCHS}")
    return out or ["settings that are not the paper's"]


def _datasets(plan: Plan, cells: Sequence[Cell], wanted: Iterable[str]) -> list[str]:
    here, needed = {cell.spec.dataset.name for cell in cells}, list(wanted)
    out = []
    if missing := [name for name in needed if name not in here]:
        out.append(f"{len(needed) - len(missing)} of {counted(len(needed), 'dataset')} (not {', '.join(missing)})")
    if drawn := [d.ref.name for d in plan.datasets if d.stand_in and d.ref.name in here]:
        out.append(f"drawn images in place of {', '.join(drawn)}")
    refs = {cell.spec.dataset for cell in cells}
    if grouped := [d.ref.name for d in plan.datasets if d.grouped and d.ref in refs]:
        out.append(f"the grouped split of {', '.join(grouped)}")
    return out


def _seeds(cells: Sequence[Cell]) -> list[str]:
    least, wanted = min(len(cell.results) for cell in cells), len(paper.SEEDS)
    out = [f"{counted(least, 'seed')}, not {wanted}"] if least < wanted else []
    unfinished = sum(cell.status != "complete" for cell in cells)
    return [*out, f"{counted(unfinished, 'cell')} not complete"] if unfinished else out


def _collapsed(plan: Plan, cells: Sequence[Cell]) -> list[str]:
    found = pretraining(plan, cells)
    count = sum(bool(result.collapsed) for _, result in found.values())
    return [f"{count} of {counted(len(found), 'pretraining run')} collapsed"] if count else []


def pretraining(plan: Plan, cells: Iterable[Cell]) -> dict[str, tuple[PretrainSpec, Result]]:
    """The finished pretraining runs that the finished runs of these cells start from, by id."""
    out: dict[str, tuple[PretrainSpec, Result]] = {}
    for cell in cells:
        for seed in cell.results:
            parent = plan.runs[cell.runs[seed].id].parent
            if parent and parent not in out and plan.runs[parent].state == "done":
                spec = plan.runs[parent].spec
                assert isinstance(spec, PretrainSpec)
                out[parent] = spec, plan.runs[parent].run.result()
    return out


def parent_collapsed(plan: Plan, cell: Cell, seed: int) -> bool | None:
    """Whether the arm that this run started from had collapsed; None where it had no finished pretraining run."""
    planned = plan.runs[cell.runs[seed].id]
    if planned.parent is None or plan.runs[planned.parent].state != "done":
        return None
    assert isinstance(planned.spec, FinetuneSpec)
    return planned.spec.arm in plan.runs[planned.parent].run.result().collapsed
