"""The training step: CASS compared with a plain loop, with its own arms and with DINO; the effect of each choice.

On a GPU it is the paper's step, ResNet-50 and ViT-B/16 at 384 pixels; on a CPU a smaller one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from pipeline.benchmarks.support import limits, plain_loop
from pipeline.benchmarks.support.measure import Case, Settings, compare
from pipeline.benchmarks.support.raw_images import raw_folder
from pipeline.benchmarks.support.tables import Row, Table
from pipeline.benchmarks.support.training import (
    SMALL,
    TOY,
    WARMUP_STEPS,
    TimedPretraining,
    choose_hardware,
    make_dataset,
    this_machine,
    train,
    untrained,
)
from pipeline.learn.hardware import Hardware
from pipeline.runs.cluster import Cluster
from pipeline.runs.spec import DatasetRef, Optim, PretrainSpec
from pipeline.study import paper, recipes

TITLE = "a training step of CASS, compared with a plain loop, its arms and DINO"
BATCH = paper.PRETRAIN_BATCH


@dataclasses.dataclass(frozen=True)
class Setup:
    """What every table of this benchmark trains, and on which hardware."""

    settings: Settings
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
        spec = recipes.cass(self.dataset, self.pair, preset=paper.preset("paper"), seed=0)
        spec = recipes.with_optim(spec, almost_frozen(paper.PRETRAIN_OPTIM))
        return dataclasses.replace(spec, batch_size=batch, image_size=self.size)

    def dino(self, arm: int, dimensions: int) -> PretrainSpec:
        preset = paper.preset("paper")
        spec = recipes.dino(self.dataset, self.pair[arm], preset=preset, seed=0, image_size=self.size)
        spec = recipes.with_options(spec, {"out_dim": dimensions})
        return recipes.with_optim(spec, almost_frozen(paper.DINO_OPTIM))

    def program(self, spec: PretrainSpec, *, in_memory: bool = True) -> TimedPretraining:
        return TimedPretraining(spec, self.site, self.steps, in_memory=in_memory)

    def seconds(self, program: TimedPretraining, hardware: Hardware | None = None) -> float:
        """Train the program; returns the mean seconds of a step."""
        train(program, self.settings, hardware or self.hardware)
        return program.seconds_a_step()


def almost_frozen(optim: Optim) -> Optim:
    """The optimizer with a tiny learning rate, so that hundreds of steps on one batch do not overfit it."""
    return dataclasses.replace(optim, lr=1e-6)


def run(settings: Settings) -> list[Table]:
    """Images a second of CASS and of a plain loop; seconds of a step for the arms, for each choice and for DINO."""
    site = this_machine(settings, "cpu" if settings.quick else "auto")
    hardware = choose_hardware(site)
    site = dataclasses.replace(site, device=hardware.device)
    large = hardware.device == "cuda"
    pair, size = (TOY, 32) if settings.quick else (paper.STANDARD, paper.IMAGE_SIZE) if large else (SMALL, 64)
    steps = WARMUP_STEPS + (2 if settings.quick else 40 if large else 12)
    raw, note = raw_folder(settings, -(-(steps + 1) * BATCH * 10 // 8))  # 80% of the images are for training
    setup = Setup(
        settings=settings,
        raw=raw,
        note=note,
        dataset=make_dataset(settings, raw, size),
        site=site,
        hardware=hardware,
        pair=[untrained(backbone) for backbone in pair],
        size=size,
        steps=steps,
    )
    alone, whole = against_plain_loop(setup)
    tables = [against_arms, batch_sizes, choices, against_dino]
    return [alone, whole, arithmetic(setup, alone, whole), *(table(setup) for table in tables)]


def against_plain_loop(setup: Setup) -> tuple[Table, Table]:
    """CASS compared with a plain loop: the step alone, and the step with each side's own loading."""
    title = f"{setup.title}, batches of {BATCH}, {setup.hardware.threads} threads"
    in_memory, from_shards = (setup.program(setup.cass(), in_memory=in_memory) for in_memory in (True, False))
    plain = partial(
        plain_loop.seconds_a_step,
        size=setup.size,
        steps=setup.steps,
        batch=BATCH,
        threads=setup.hardware.threads,
        device=setup.hardware.device,
        pair=setup.pair,
    )
    alone = compare(
        "step alone",
        "images a second",
        [
            Case(name="ours, augmentation included", measure=lambda: BATCH / setup.seconds(in_memory)),
            Case(name="a plain loop, no augmentation", measure=lambda: BATCH / plain(raw=None), role="peer"),
        ],
        setup.settings,
        notes=[
            title,
            "both have their batch in memory: ours uint8 images, the plain loop augmented float32 tensors",
            "the plain loop has a process of its own, two networks, two torch.optim.Adam with default settings, two "
            "cosine schedules and loss.item() per step; it is not deterministic, and float32 is torch's default (on a "
            "GPU TF32 in convolutions)",
        ],
    )
    whole = compare(
        "step with loading",
        "images a second",
        [
            Case(name="ours, from shards", measure=lambda: BATCH / setup.seconds(from_shards)),
            Case(name="a plain loop, from raw files", measure=lambda: BATCH / plain(raw=setup.raw), role="peer"),
            Case(name="ours, batch in memory", measure=lambda: BATCH / setup.seconds(in_memory), role="limit"),
        ],
        setup.settings,
        notes=[title, setup.note, "the plain loop loads as the paper does: Pillow, torchvision, two worker processes"],
    )
    loading, _, without_loading = whole.rows
    waiting = max(0.0, 1 - loading.median / without_loading.median)
    whole.notes.append(f"ours waits for its images during {waiting:.1%} of a step, by the medians")
    return alone, whole


def arithmetic(setup: Setup, alone: Table, whole: Table) -> Table:
    """The arithmetic of the steps just measured, compared with matrix multiplication on the same device."""
    flops = limits.gigaflops(setup.pair, setup.size)
    side, seconds = (256, 0.05) if setup.settings.quick else (8192 if setup.hardware.device == "cuda" else 2048, 1.0)
    multiplied = [limits.teraflops(setup.hardware, side, seconds) for _ in range(setup.settings.rounds)]
    rows = [
        Row(name=name, role="ours", values=[flops * value / 1000 for value in table.rows[0].values])
        for name, table in (("the step alone", alone), ("the step with loading", whole))
    ]
    return Table(
        title="arithmetic",
        unit="TFLOP/s",
        rows=[*rows, Row(name=f"multiplying matrices of {side}×{side}", role="limit", values=multiplied)],
        notes=[f"{setup.title}: {flops:,.4g} GFLOP an image, forward and backward, as torch counts them"],
    )


def against_arms(setup: Setup) -> Table:
    """A step of CASS compared with its two arms, each trained alone in its fastest form."""
    program = setup.program(setup.cass())
    ours = Case(name="CASS, both arms", measure=lambda: setup.seconds(program))
    arms = [single_arm(setup, backbone) for backbone in setup.pair]
    cases = [ours, *(case for arm in arms for case in arm)]
    table = compare("CASS and its arms alone", "seconds a step", cases, setup.settings, more_is_better=False)
    rows = {row.name: row for row in table.rows}
    fastest = [min((rows[case.name] for case in arm), key=lambda row: row.median) for arm in arms]
    values = [sum(round) for round in zip(*(row.values for row in fastest), strict=True)]
    both = Row(name="both arms alone, in their fastest forms", role="limit", values=values)
    table.rows.insert(1, both)
    table.notes = [
        f"{setup.title}, batches of {BATCH} in memory",
        "alone: no augmentation, no agreement, any algorithms; the fastest form of an arm by the medians counts",
        f"CASS reaches {both.median / rows[ours.name].median:.0%} of the rate that its arms alone allow",
    ]
    return table


def single_arm(setup: Setup, backbone: paper.Backbone) -> list[Case]:
    """One arm trained alone, in each form that may be its fastest."""
    cases = []
    for channels_last in (False, True) if backbone.role == paper.CNN else (False,):
        for compiled in (False, True) if limits.can_compile(setup.hardware.device) else (False,):
            arm = limits.SingleArm(
                backbone, setup.hardware, size=setup.size, batch=BATCH, channels_last=channels_last, compiled=compiled
            )
            name = f"{backbone.title} alone{', channels_last' * channels_last}{', compiled' * compiled}"
            cases.append(Case(name=name, measure=partial(arm.seconds, setup.steps - WARMUP_STEPS), role="limit"))
    return cases


def batch_sizes(setup: Setup) -> Table:
    """Images a second with larger batches, up to what fits into the device's memory."""
    cases, notes = [], [f"{setup.title}, in memory"]
    for size in (BATCH,) if setup.settings.quick else (BATCH, 2 * BATCH, 4 * BATCH):
        program = setup.program(setup.cass(size))
        try:
            images_a_second(setup, program)
        except torch.OutOfMemoryError:
            notes.append(f"batches of {size} are too large for the device's memory")
        else:
            cases.append(Case(name=f"batches of {size}", measure=partial(images_a_second, setup, program)))
    return compare("batches", "images a second", cases, setup.settings, notes=notes)


def images_a_second(setup: Setup, program: TimedPretraining) -> float:
    return program.spec.batch_size / setup.seconds(program)


def choices(setup: Setup) -> Table:
    """The seconds of a step when one choice at a time is undone."""
    ours, unfused, channels_last = (setup.program(setup.cass()) for _ in range(3))
    unfused.optimizers = [
        (torch.optim.Adam(optimizer.param_groups[0]["params"], lr=optim.lr), optim)
        for optimizer, optim in unfused.optimizers
    ]
    channels_last.method.networks[setup.cass().arms[0].name].to(memory_format=torch.channels_last)

    def with_any_algorithms() -> float:
        with limits.any_algorithms():
            return setup.seconds(ours)

    cases = [
        Case(name="ours", measure=lambda: setup.seconds(ours)),
        Case(name="optimizers not fused", measure=lambda: setup.seconds(unfused)),
        Case(name="the CNN in channels_last", measure=lambda: setup.seconds(channels_last)),
        Case(name="any algorithms, the fastest by trial", measure=with_any_algorithms),
    ]
    if setup.hardware.device == "cuda":
        exact = setup.program(setup.cass())
        float32 = dataclasses.replace(setup.hardware, precision="float32")
        cases.append(Case(name="in float32", measure=lambda: setup.seconds(exact, float32)))
    if limits.can_compile(setup.hardware.device):
        compiled = setup.program(setup.cass())
        for network in compiled.method.networks.values():
            network.compile(dynamic=False)
        cases.append(Case(name="both networks compiled", measure=lambda: setup.seconds(compiled)))
    note = "averaging is not a part of a step; the benchmark checkpoint measures its part of a run"
    return compare("choices", "seconds a step", cases, setup.settings, more_is_better=False, notes=[note])


def against_dino(setup: Setup) -> Table:
    """Seconds for one batch in both networks: CASS trains them together, DINO one after the other."""
    widths = (64,) if setup.settings.quick else (4096, int(paper.DINO_OPTIONS["out_dim"]))
    cass = setup.program(setup.cass())
    cases = [Case(name="CASS, both networks", measure=lambda: setup.seconds(cass))]
    for width in widths:
        for arm, backbone in enumerate(setup.pair):
            program = setup.program(setup.dino(arm, width))
            name = f"DINO, K = {width:,}, {backbone.title}"
            cases.append(Case(name=name, measure=partial(setup.seconds, program), role="peer"))
    table = compare(
        "CASS and DINO",
        "seconds a batch",
        cases,
        setup.settings,
        more_is_better=False,
        notes=[
            "both methods train the same images and epochs in this project's loop, so a batch stands for the whole run",
            "the paper: CASS takes 69 % less time than DINO (abstract and A.1), 0.31 of it, so DINO 3.2 times as long; "
            "Table 2 does not say whether DINO's hours are those of one network or of both",
        ],
    )
    for number, width in enumerate(widths):
        first, second = table.rows[1 + 2 * number : 3 + 2 * number]
        both = [a + b for a, b in zip(first.values, second.values, strict=True)]
        row = Row(name=f"DINO, K = {width:,}, both networks", role="peer", values=both)
        table.rows.append(row)
        table.notes.append(f"CASS takes {table.rows[0].median / row.median:.2f} of DINO's time at K = {width:,}")
    return table
