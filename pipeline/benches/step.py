"""The step: CASS beside a plain loop, what each choice is worth, and DINO's time for the same pictures."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline import paper
from pipeline.benches.base import Bench, Row, Table, Way, compare
from pipeline.benches.pictures import raw_folder
from pipeline.benches.plain import seconds
from pipeline.benches.training import SMALL, TOY, WARM, Timed, make_shards, settled, site, train
from pipeline.learn.hardware import Hardware
from pipeline.spec import DatasetRef, PretrainSpec

TITLE = "a training step, its parts, and DINO beside CASS"
BATCH = paper.PRETRAIN_BATCH


@dataclasses.dataclass(frozen=True)
class Setting:
    """What every table of this benchmark trains, and on what."""

    bench: Bench
    raw: Path
    note: str
    dataset: DatasetRef
    hardware: Hardware
    pair: Sequence[paper.Backbone]
    size: int
    steps: int

    def cass(self) -> PretrainSpec:
        return paper.cass(self.dataset, backbones=self.pair, **self.shared())

    def dino(self, arm: int, dimensions: int) -> PretrainSpec:
        options = {"out_dim": dimensions}
        return paper.dino(self.dataset, backbone=self.pair[arm], options=options, **self.shared())

    def shared(self) -> dict[str, Any]:
        return {"preset": paper.preset("paper"), "seed": 0, "weights": "random", "image_size": self.size}

    def program(self, spec: PretrainSpec, *, held: bool = True) -> Timed:
        return Timed(spec, site(self.bench), self.steps, held=held)

    def seconds(self, program: Timed) -> float:
        train(program, self.bench, self.hardware)
        return program.seconds_a_step()


def run(bench: Bench) -> list[Table]:
    """Pictures a second of CASS beside a plain loop; seconds of a step for each choice and for DINO."""
    steps = WARM + (2 if bench.quick else 12)
    raw, note = raw_folder(bench, -(-(steps + 1) * BATCH * 10 // 8))  # eight tenths of them are for training
    size = 32 if bench.quick else 64
    setting = Setting(
        bench=bench,
        raw=raw,
        note=note,
        dataset=make_shards(bench, raw, size),
        hardware=settled(site(bench)),
        pair=TOY if bench.quick else SMALL,
        size=size,
        steps=steps,
    )
    return [*beside_plain(setting), choices(setting), beside_dino(setting)]


def beside_plain(setting: Setting) -> list[Table]:
    """CASS beside a plain loop, the step alone and with each side's own loading."""
    pair = " and ".join(backbone.title for backbone in setting.pair)
    what = f"CASS, {pair}, {setting.size} pixels, batches of {BATCH}, {setting.hardware.threads} threads, float32"
    held, read = (setting.program(setting.cass(), held=held) for held in (True, False))
    plain = partial(
        seconds,
        size=setting.size,
        steps=setting.steps,
        batch=BATCH,
        threads=setting.hardware.threads,
        pair=setting.pair,
    )
    alone = compare(
        "step alone",
        "pictures a second",
        [
            Way(name="ours, augmentation included", once=lambda: BATCH / setting.seconds(held)),
            Way(name="a plain loop, no augmentation", once=lambda: BATCH / plain(raw=None), role="peer"),
        ],
        setting.bench,
        notes=[
            what,
            "both sides have their batch in memory: ours uint8 pictures, the plain loop's augmented float32 tensors",
            "a plain loop, in a process of its own: two networks, two torch.optim.Adam as they come, two cosine "
            "schedules, loss.item() a step; not deterministic",
        ],
    )
    whole = compare(
        "step with loading",
        "pictures a second",
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
    return [alone, whole]


def choices(setting: Setting) -> Table:
    """What a step takes with one choice undone at a time."""
    as_it_is, unfused, last = (setting.program(setting.cass()) for _ in range(3))
    unfused.optimizers = [
        (torch.optim.Adam(optimizer.param_groups[0]["params"], lr=optim.lr), optim)
        for optimizer, optim in unfused.optimizers
    ]
    last.method.networks[setting.cass().arms[0].name].to(memory_format=torch.channels_last)

    def free() -> float:
        with determinism(False):
            return setting.seconds(as_it_is)

    ways = [
        Way(name="as it is", once=lambda: setting.seconds(as_it_is)),
        Way(name="optimizers not fused", once=lambda: setting.seconds(unfused)),
        Way(name="the CNN in channels_last", once=lambda: setting.seconds(last)),
        Way(name="deterministic algorithms off", once=free),
    ]
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
            "equal pictures and epochs, so a batch stands for the whole run; both methods by this project's loop",
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


@contextlib.contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Deterministic algorithms on or off for a while."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
