"""The estimate of a plan as text."""

from __future__ import annotations

from typing import Any

from pipeline.core.console import counted
from pipeline.jobs.costs import (
    CASS_GFLOPS,
    DERIVED,
    MODELLED,
    PART_OF_PEAK,
    TABLE_2,
    TABLE_2_GPU,
    UNKNOWN,
    part_of_peak,
    table_2_hours,
)
from pipeline.jobs.estimate import Estimate, gigabytes, rounded
from pipeline.runs.cluster import GPU_PEAKS


def estimate_lines(estimate: Estimate) -> list[str]:
    """Hours and storage; empty if nothing is to do."""
    out = hours_lines(estimate)
    if estimate.final_bytes:
        more = gigabytes(estimate.peak_bytes)
        out.append(f"storage: {gigabytes(estimate.final_bytes)} at the end, {more} more at the peak")
    if estimate.unknown_sizes:
        out.append(f"of unknown size, and not in the storage: {', '.join(estimate.unknown_sizes)}")
    return out


def estimate_facts(estimate: Estimate) -> dict[str, Any]:
    """What `--json` says of it: hours by kind of run and how many have them from where, bytes, hours in all."""
    kinds = {"pretrain": estimate.pretrain, "finetune": estimate.finetune}
    return {
        "unit": estimate.unit,
        **{name: {"hours": kind.hours, "runs_by_source": dict(kind.runs)} for name, kind in kinds.items()},
        "jobs": estimate.jobs,
        "wall_hours": estimate.wall_hours,
        "final_bytes": estimate.final_bytes,
        "peak_bytes": estimate.peak_bytes,
        "unknown_sizes": estimate.unknown_sizes,
    }


def hours_lines(estimate: Estimate) -> list[str]:
    """The hours alone."""
    out = []
    kinds = _kinds(estimate)
    counts = estimate.pretrain.runs + estimate.finetune.runs
    if kinds:
        out.append(f"{estimate.unit}: {', '.join(kinds)}")
    if counts[MODELLED]:
        out += _model_lines(estimate)
    if counts[TABLE_2] + counts[DERIVED]:
        out.append(f"  Table 2 is of an {TABLE_2_GPU} in float32; finished runs under the same folder replace it")
    if estimate.dino_excess:
        less = rounded(estimate.pretrain.hours - estimate.dino_excess)
        out.append(f"  {less} of pretraining if Table 2's hours of DINO are those of both backbones, not of each")
    if estimate.map_hours:
        filled = rounded(estimate.map_hours)
        out.append(f"  {filled} of them to decode images in each job: scratch holds variables, so it ends with the job")
    if counts[UNKNOWN]:
        out.append(f"of unknown length: {counted(counts[UNKNOWN], 'run')}; no run like that has finished here yet")
    if kinds:
        at_once = f"{estimate.jobs} jobs at once" if estimate.jobs > 1 else "one job at a time"
        out.append(f"wall-clock: {rounded(estimate.wall_hours)} h with {at_once}, without the time in the queue")
    return out


def _kinds(estimate: Estimate) -> list[str]:
    """The hours of each kind of run with their sources; kinds of which nothing is known are left out."""
    out = []
    for what, kind in (("of pretraining", estimate.pretrain), ("of fine-tuning at most", estimate.finetune)):
        sources = {source: count for source, count in kind.runs.items() if source != UNKNOWN}
        if sources:
            said = [f"{count} {source}" if len(sources) > 1 else source for source, count in sources.items()]
            out.append(f"{rounded(kind.hours)} {what} ({', '.join(said)})")
    return out


def _model_lines(estimate: Estimate) -> list[str]:
    """How hours are modelled, and the same compared with Table 2."""
    peaks, low_high = GPU_PEAKS[estimate.gpu_model], PART_OF_PEAK["float32"]
    part = " to ".join(f"{share * 100:.0f}" for share in low_high)
    printed = 1 / table_2_hours("cass", "isic") / 3600
    modelled = " to ".join(f"{share * peaks['float32'] * 1000 / CASS_GFLOPS:.0f}" for share in low_high)
    used = ", ".join(f"{part_of_peak(kind) * 100:.0f} % of {peaks[kind]:g} TFLOP/s in {kind}" for kind in PART_OF_PEAK)
    by_table_2 = rounded(estimate.hours_by_table_2)
    return [
        f"  modelled: an {estimate.gpu_model} at {used}; finished runs under the same folder replace it",
        f"  at {part} % it makes {modelled} images a second of CASS in float32; Table 2's, on ISIC, makes {printed:.0f}"
        + (f"; all pretraining by Table 2: {by_table_2} h" if estimate.hours_by_table_2 else ""),
    ]
