"""A step of CASS in every way that a GPU allows, compared with a loop in the reference's style; one table."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from pipeline.benchmarks import step
from pipeline.benchmarks.gpu.programme import Found, Programme, Sheet
from pipeline.benchmarks.gpu.variations import (
    GRAPH,
    LOADED,
    OURS,
    PLAIN_LOADED,
    TF32_FROM,
    VARIATIONS,
    Variation,
    change,
)
from pipeline.benchmarks.step import Setup
from pipeline.benchmarks.support import limits, plain_loop
from pipeline.benchmarks.support.raw_images import raw_folder
from pipeline.benchmarks.support.tables import number
from pipeline.benchmarks.support.training import WARMUP_STEPS, TimedPretraining, make_dataset, this_machine, train
from pipeline.core import files
from pipeline.jobs.footprints import key_of, known
from pipeline.learn import hardware

TITLE = "the step: precision, layout, streams, compilation, graphs, batches"
MINUTES = 20.0
MULTIPLICATION = "multiplying matrices"


class Measured(TimedPretraining):
    """Records the device's peak memory of its steps."""

    peak: tuple[int, int] | None = None
    """Bytes allocated and bytes reserved."""

    def end_epoch(self, epoch: int) -> tuple[dict[str, Any], bool]:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return super().end_epoch(epoch)


def parts(programme: Programme) -> list[str]:
    return [MULTIPLICATION, *(variation.name for variation in VARIATIONS)]


def run(programme: Programme, part: str) -> Found:
    setup = prepare(programme)
    if part == MULTIPLICATION:
        return multiplication(programme, setup)
    variation = next(v for v in VARIATIONS if v.name == part)
    if lacks := variation.lacks(programme.device):
        return {"skipped": lacks}
    try:
        return plain(setup, variation) if variation.plain else ours(setup, variation)
    except torch.cuda.OutOfMemoryError:  # of no use to the next call either
        if variation.graphs:
            raise  # in the middle of a capture: the process must end
        return {"skipped": "the GPU's memory is too small"}


def prepare(programme: Programme) -> Setup:
    """What every row trains, with the process set to compute as runs do."""
    setup = data(programme)
    hardware.make_deterministic(setup.hardware)
    return setup


@cache
def data(programme: Programme) -> Setup:
    """Shards of raw images of ISIC's sizes, made or checked by the first part of this process that needs them."""
    settings = programme.settings("speed")
    site = this_machine(settings, programme.device)
    steps = WARMUP_STEPS + (2 if programme.quick else 40)
    raw, note = raw_folder(settings, -(-(steps + 1) * step.BATCH * 10 // 8))  # 80 % of the images are for training
    return Setup(
        settings=settings,
        raw=raw,
        note=note,
        dataset=make_dataset(settings, raw, programme.size),
        site=site,
        hardware=hardware.choose(site, "auto"),
        pair=programme.pair,
        size=programme.size,
        steps=steps,
    )


def multiplication(programme: Programme, setup: Setup) -> Found:
    """TFLOP/s of multiplied matrices by precision, and the arithmetic of an image."""
    side, seconds = (256, 0.05) if programme.quick else (8192, 1.0)
    rates = {"float32": limits.teraflops(replace(setup.hardware, precision="float32"), side, seconds)}
    if setup.hardware.precision != "float32":
        rates[setup.hardware.precision] = limits.teraflops(setup.hardware, side, seconds)
    if programme.device == "cuda" and torch.cuda.get_device_capability() >= TF32_FROM:
        torch.backends.cuda.matmul.allow_tf32 = True
        rates["tf32"] = limits.teraflops(replace(setup.hardware, precision="float32"), side, seconds)
    return {"teraflops": rates, "side": side, "gigaflops": limits.gigaflops(setup.pair, setup.size), "raw": setup.note}


def plain(setup: Setup, variation: Variation) -> Found:
    """Seconds a step and peak memory of the loop in the reference's style, in torch's default settings."""
    seconds, peak = plain_loop.measure(
        size=setup.size,
        steps=setup.steps,
        batch=variation.batch,
        threads=setup.hardware.threads,
        device=setup.hardware.device,
        pair=setup.pair,
        raw=setup.raw if variation.loading else None,
    )
    return {"seconds": seconds, "batch": variation.batch, "precision": "float32", "allocated": peak}


def ours(setup: Setup, variation: Variation) -> Found:
    """Seconds a step and peak memory of this project's step."""
    chosen = replace(setup.hardware, precision=variation.precision or setup.hardware.precision)
    hardware.reset_peak_memory(chosen)
    spec = setup.cass(variation.batch)
    program = Measured(spec, setup.site, setup.steps, in_memory=not variation.loading)
    change(program, variation)
    with limits.any_algorithms() if variation.any_algorithms else contextlib.nullcontext():
        train(program, setup.settings, chosen, graphs=variation.graphs, saves=False)
    allocated, reserved = program.peak or (None, None)
    found = {"seconds": program.seconds_a_step(), "batch": variation.batch, "precision": chosen.precision}
    found |= {"allocated": allocated, "reserved": reserved, "kind": key_of(spec, chosen.precision)}
    if variation in (OURS, GRAPH):  # the same images, draws and steps
        found["bits"] = bits_of(program.module)
    return found


def bits_of(module: torch.nn.Module) -> str:
    """A checksum of all weights and buffers."""
    values = (value.detach().cpu().flatten().view(torch.uint8).numpy() for value in module.state_dict().values())
    return files.sha256_bytes(b"".join(value.tobytes() for value in values))


def teraflops(found: Mapping[str, Found]) -> dict[str, float]:
    """What the project's step reaches, by precision: with its loading where that is measured, else from memory."""
    gigaflops = found.get(MULTIPLICATION, {}).get("gigaflops", 0.0)
    as_it_is = [v for v in VARIATIONS if v == replace(OURS, name=v.name, precision=v.precision, loading=v.loading)]
    rows = [found[v.name] for v in sorted(as_it_is, key=lambda v: v.loading) if "seconds" in found.get(v.name, {})]
    return {row["precision"]: row["batch"] / row["seconds"] * gigaflops / 1000 for row in rows}


def reserved(found: Mapping[str, Found]) -> list[tuple[str, int, int]]:
    """Kind of run, batch and bytes reserved, of the rows that train as the project does."""
    as_it_is = [v for v in VARIATIONS if v == replace(OURS, name=v.name, precision=v.precision, batch=v.batch)]
    rows = [found[v.name] for v in as_it_is if found.get(v.name, {}).get("reserved")]
    return [(row["kind"], row["batch"], row["reserved"]) for row in rows]


def sheets(programme: Programme, found: Mapping[str, Found]) -> list[Sheet]:
    limit = found.get(MULTIPLICATION)
    if limit is None:
        return []
    rows = [row(found[v.name], v, found, limit) for v in VARIATIONS if v.name in found]
    notes = [
        f"{' and '.join(b.title for b in programme.pair)}, {programme.size} pixels; {limit['raw']}",
        f"{limit['gigaflops']:.4g} GFLOP an image; of the peak: TFLOP/s divided by those of multiplying matrices of "
        f"{limit['side']}×{limit['side']} here in the same precision ("
        + ", ".join(f"{name} {number(rate)} TFLOP/s" for name, rate in limit["teraflops"].items())
        + ")",
        "times as fast: compared with the reference's style with its loader (Pillow and torchvision, two workers)",
        "allocated, reserved: the most that torch held during the steps; counted: what the model of memory says of it",
    ]
    step, loaded = (found.get(variation.name, {}).get("seconds") for variation in (OURS, LOADED))
    if step and loaded:
        waits = max(0.0, 1 - step / loaded)
        notes.append(f"ours waits for its images during {waits:.1%} of a step")
    header = ["way", "precision", "batch", "images a second", "ms a step", "times as fast", "of the peak"]
    header += ["allocated GB", "reserved GB", "counted GB"]
    bits = [found.get(variation.name, {}).get("bits") for variation in (OURS, GRAPH)]
    if all(bits):
        same = "the same bits as" if bits[0] == bits[1] else "OTHER BITS than"
        notes.append(f"{GRAPH.name}: after the same steps its weights have {same} those of {OURS.name}")
    return [Sheet(title="The step of CASS", header=header, rows=rows, notes=notes)]


def row(own: Found, variation: Variation, found: Mapping[str, Found], limit: Found) -> list[str]:
    """The table's row of one variation."""
    if "skipped" in own:
        return [variation.name, variation.precision, str(variation.batch), own["skipped"], *[""] * 6]
    speed = own["batch"] / own["seconds"]
    tf32 = variation.tf32 or (variation.plain and has_tf32(limit))
    rate = limit["teraflops"].get("tf32" if tf32 else own["precision"])
    peer = found.get(PLAIN_LOADED.name, {})
    return [
        variation.name,
        own["precision"] + " with TF32" * tf32,
        str(own["batch"]),
        number(speed),
        number(own["seconds"] * 1000),
        f"{speed * peer['seconds'] / peer['batch']:.2f}" if "seconds" in peer else "",
        f"{speed * limit['gigaflops'] / 1000 / rate:.1%}" if rate else "",
        *(f"{value / 1e9:.2f}" if (value := own.get(kind)) else "" for kind in ("allocated", "reserved")),
        _counted(own),
    ]


def _counted(own: Found) -> str:
    """What the model says that the row allocates, in GB: before the end of an epoch nothing is averaged yet."""
    footprint = known().get(own.get("kind", ""))
    return f"{(footprint.of_step(own['batch']) - footprint.averages) / 1e9:.2f}" if footprint else ""


def has_tf32(limit: Found) -> bool:
    """Whether torch's default settings use TF32 (in convolutions) on this device."""
    return "tf32" in limit["teraflops"]
