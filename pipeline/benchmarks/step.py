"""The step: CASS beside a plain loop and beside its own arms, what each choice is worth, and DINO's time.

On a GPU it is the paper's step, ResNet-50 and ViT-B/16 at 384 pixels; on a CPU a small one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.benchmarks.support import limits
from pipeline.benchmarks.support.base import Bench, Row, Table, Way, compare
from pipeline.benchmarks.support.plain import seconds
from pipeline.benchmarks.support.raw_images import raw_folder
from pipeline.benchmarks.support.training import SMALL, TOY, WARM, Timed, make_shards, settled, site, train
from pipeline.learn.hardware import Hardware
from pipeline.runs.cluster import Cluster
from pipeline.runs.spec import DatasetRef, Optim, PretrainSpec
from pipeline.study import paper

TITLE = "a training step, its parts, and DINO beside CASS"
BATCH = paper.PRETRAIN_BATCH


@dataclasses.dataclass(frozen=True)
class Setting:
    """What every table of this benchmark trains, and on what."""

    bench: Bench
    raw: Path
    note: str
    dataset: DatasetRef
    site: Cluster
    hardware: Hardware
    pair: Sequence[paper.Backbone]
    size: int
    steps: int

    @property
    def title(self) -> str:
        pair = " and ".join(backbone.title for backbone in self.pair)
        return f"CASS, {pair}, {self.size} pixels, {self.hardware.model}, {self.hardware.precision}"

    def cass(self, batch: int = BATCH) -> PretrainSpec:
        optims = (still(paper.PRETRAIN_OPTIM),) * 2
        return paper.cass(self.dataset, backbones=self.pair, batch_size=batch, optims=optims, **self.shared())

    def dino(self, arm: int, dimensions: int) -> PretrainSpec:
        backbone, options, optim = self.pair[arm], {"out_dim": dimensions}, still(paper.DINO_OPTIM)
        return paper.dino(self.dataset, backbone=backbone, options=options, optim=optim, **self.shared())

    def shared(self) -> dict[str, Any]:
        return {"preset": paper.preset("paper"), "seed": 0, "weights": "random", "image_size": self.size}

    def program(self, spec: PretrainSpec, *, held: bool = True) -> Timed:
        return Timed(spec, self.site, self.steps, held=held)

    def seconds(self, program: Timed, hardware: Hardware | None = None) -> float:
        train(program, self.bench, hardware or self.hardware)
        return program.seconds_a_step()


def still(optim: Optim) -> Optim:
    """The optimizer at a rate that changes next to nothing: hundreds of steps on one batch lead nowhere else."""
    return dataclasses.replace(optim, lr=1e-6)


def run(bench: Bench) -> list[Table]:
    """Images a second of CASS beside a plain loop; seconds of a step for each arm, choice and for DINO."""
    here = site(bench, "cpu" if bench.quick else "auto")
    hardware = settled(here)
    here = dataclasses.replace(here, device=hardware.device)
    large = hardware.device == "cuda"
    pair, size = (TOY, 32) if bench.quick else (paper.STANDARD, paper.IMAGE_SIZE) if large else (SMALL, 64)
    steps = WARM + (2 if bench.quick else 40 if large else 12)
    raw, note = raw_folder(bench, -(-(steps + 1) * BATCH * 10 // 8))  # eight tenths of them are for training
    setting = Setting(
        bench=bench,
        raw=raw,
        note=note,
        dataset=make_shards(bench, raw, size),
        site=here,
        hardware=hardware,
        pair=pair,
        size=size,
        steps=steps,
    )
    alone, whole = beside_plain(setting)
    tables = [beside_arms, batches, choices, beside_dino]
    return [alone, whole, arithmetic(setting, alone, whole), *(table(setting) for table in tables)]


def beside_plain(setting: Setting) -> tuple[Table, Table]:
    """CASS beside a plain loop, the step alone and with each side's own loading."""
    what = f"{setting.title}, batches of {BATCH}, {setting.hardware.threads} threads"
    held, read = (setting.program(setting.cass(), held=held) for held in (True, False))
    plain = partial(
        seconds,
        size=setting.size,
        steps=setting.steps,
        batch=BATCH,
        threads=setting.hardware.threads,
        device=setting.hardware.device,
        pair=setting.pair,
    )
    alone = compare(
        "step alone",
        "images a second",
        [
            Way(name="ours, augmentation included", once=lambda: BATCH / setting.seconds(held)),
            Way(name="a plain loop, no augmentation", once=lambda: BATCH / plain(raw=None), role="peer"),
        ],
        setting.bench,
        notes=[
            what,
            "both sides have their batch in memory: ours uint8 images, the plain loop's augmented float32 tensors",
            "a plain loop, in a process of its own: two networks, two torch.optim.Adam as they come, two cosine "
            "schedules, loss.item() a step; not deterministic, float32 as torch has it (on a GPU TF32 in convolutions)",
        ],
    )
    whole = compare(
        "step with loading",
        "images a second",
        [
            Way(name="ours, from shards", once=lambda: BATCH / setting.seconds(read)),
            Way(
                name="a plain loop, from raw files",
                once=lambda: BATCH / plain(raw=setting.raw),
                role="peer",
            ),
            Way(name="ours, batch in memory", once=lambda: BATCH / setting.seconds(held), role="limit"),
        ],
        setting.bench,
        notes=[what, setting.note, "the plain loop loads as the paper does: Pillow, torchvision, two worker processes"],
    )
    loading, _, in_memory = whole.rows
    waiting = max(0.0, 1 - loading.median / in_memory.median)
    whole.notes.append(f"ours waits for its images {waiting:.1%} of a step, by the medians")
    return alone, whole


def arithmetic(setting: Setting, alone: Table, whole: Table) -> Table:
    """The arithmetic of the steps just measured, beside matrices multiplied on the same device."""
    flops = limits.gigaflops(setting.pair, setting.size)
    side, seconds = (256, 0.05) if setting.bench.quick else (8192 if setting.hardware.device == "cuda" else 2048, 1.0)
    multiplied = [limits.teraflops(setting.hardware, side, seconds) for _ in range(setting.bench.rounds)]
    rows = [
        Row(name=name, role="ours", values=[flops * value / 1000 for value in table.rows[0].values])
        for name, table in (("the step alone", alone), ("the step with loading", whole))
    ]
    return Table(
        title="arithmetic",
        unit="TFLOP/s",
        rows=[*rows, Row(name=f"matrices of {side} multiplied", role="limit", values=multiplied)],
        notes=[f"{setting.title}: {flops:,.4g} GFLOP an image, forward and backward, as torch counts them"],
    )


def beside_arms(setting: Setting) -> Table:
    """A step of CASS beside its two arms, each trained alone in the fastest way."""
    program = setting.program(setting.cass())
    ours = Way(name="CASS, both arms", once=lambda: setting.seconds(program))
    arms = [alone(setting, backbone) for backbone in setting.pair]
    ways = [ours, *(way for arm in arms for way in arm)]
    made = compare("CASS beside its arms", "seconds a step", ways, setting.bench, more_is_better=False)
    rows = {row.name: row for row in made.rows}
    best = [min((rows[way.name] for way in arm), key=lambda row: row.median) for arm in arms]
    values = [sum(round) for round in zip(*(row.values for row in best), strict=True)]
    both = Row(name="one after the other, each at its best", role="limit", values=values)
    made.rows.insert(1, both)
    made.notes = [
        f"{setting.title}, batches of {BATCH} in memory",
        "alone: no augmentation, no agreement, any algorithms; of an arm's ways the fastest by the medians counts",
        f"CASS reaches {both.median / rows[ours.name].median:.0%} of the rate that its arms alone allow",
    ]
    return made


def alone(setting: Setting, backbone: paper.Backbone) -> list[Way]:
    """One arm trained by itself, in each of the ways that may be its fastest."""
    ways = []
    for last in (False, True) if backbone.role == paper.CNN else (False,):
        for compiled in (False, True) if limits.compiles(setting.hardware.device) else (False,):
            network = limits.Alone(
                backbone, setting.hardware, size=setting.size, batch=BATCH, last=last, compiled=compiled
            )
            name = f"{backbone.title} alone{', channels_last' * last}{', compiled' * compiled}"
            ways.append(Way(name=name, once=partial(network.seconds, setting.steps - WARM), role="limit"))
    return ways


def batches(setting: Setting) -> Table:
    """Images a second in larger batches, as far as the device's memory goes."""
    ways, notes = [], [f"{setting.title}, in memory"]
    for size in (BATCH,) if setting.bench.quick else (BATCH, 2 * BATCH, 4 * BATCH):
        program = setting.program(setting.cass(size))
        try:
            rate_of(setting, program)
        except torch.OutOfMemoryError:
            notes.append(f"batches of {size} are too large for the device's memory")
        else:
            ways.append(Way(name=f"batches of {size}", once=partial(rate_of, setting, program)))
    return compare("batches", "images a second", ways, setting.bench, notes=notes)


def rate_of(setting: Setting, program: Timed) -> float:
    """Images a second of a program's own batches."""
    return program.spec.batch_size / setting.seconds(program)


def choices(setting: Setting) -> Table:
    """What a step takes with one choice undone at a time."""
    as_it_is, unfused, last = (setting.program(setting.cass()) for _ in range(3))
    unfused.optimizers = [
        (torch.optim.Adam(optimizer.param_groups[0]["params"], lr=optim.lr), optim)
        for optimizer, optim in unfused.optimizers
    ]
    last.method.networks[setting.cass().arms[0].name].to(memory_format=torch.channels_last)

    def free() -> float:
        with limits.any_algorithms():
            return setting.seconds(as_it_is)

    ways = [
        Way(name="as it is", once=lambda: setting.seconds(as_it_is)),
        Way(name="optimizers not fused", once=lambda: setting.seconds(unfused)),
        Way(name="the CNN in channels_last", once=lambda: setting.seconds(last)),
        Way(name="any algorithms, the fastest by trial", once=free),
    ]
    if setting.hardware.device == "cuda":
        exact = setting.program(setting.cass())
        float32 = dataclasses.replace(setting.hardware, precision="float32")
        ways.append(Way(name="in float32", once=lambda: setting.seconds(exact, float32)))
    if limits.compiles(setting.hardware.device):
        compiled = setting.program(setting.cass())
        for network in compiled.method.networks.values():
            network.compile(dynamic=False)
        ways.append(Way(name="both networks compiled", once=lambda: setting.seconds(compiled)))
    return compare(
        "choices",
        "seconds a step",
        ways,
        setting.bench,
        more_is_better=False,
        notes=["averaging is no part of a step: benchmark checkpoint has what it takes of a run"],
    )


def beside_dino(setting: Setting) -> Table:
    """Seconds for one batch in both networks: CASS trains them together, DINO one after the other."""
    widths = (64,) if setting.bench.quick else (4096, int(paper.DINO_OPTIONS["out_dim"]))
    cass = setting.program(setting.cass())
    ways = [Way(name="CASS, both networks", once=lambda: setting.seconds(cass))]
    for width in widths:
        for arm, backbone in enumerate(setting.pair):
            program = setting.program(setting.dino(arm, width))
            ways.append(
                Way(name=f"DINO, K = {width:,}, {backbone.title}", once=partial(setting.seconds, program), role="peer")
            )
    made = compare(
        "CASS beside DINO",
        "seconds a batch",
        ways,
        setting.bench,
        more_is_better=False,
        notes=[
            "equal images and epochs, so a batch stands for the whole run; both methods by this project's loop",
            "the paper: CASS takes 69 % less time than DINO (abstract and A.1), 0.31 of it, so DINO 3.2 times as long; "
            "Table 2 does not say whether DINO's hours are those of one network or of both",
        ],
    )
    for number, width in enumerate(widths):
        first, second = made.rows[1 + 2 * number : 3 + 2 * number]
        both = [a + b for a, b in zip(first.values, second.values, strict=True)]
        row = Row(name=f"DINO, K = {width:,}, both networks", role="peer", values=both)
        made.rows.append(row)
        made.notes.append(f"CASS takes {made.rows[0].median / row.median:.2f} of DINO's time at K = {width:,}")
    return made
