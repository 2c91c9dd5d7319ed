"""200 flipped bits in all that a run reads: each is found before it changes a number, or the number is not used."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import finished
import numpy as np
import pytest
import tiny
from flips import flipped

from pipeline.core import seals
from pipeline.data import pixel_map
from pipeline.data.pixel_map import PixelMap, open_pixels
from pipeline.data.shards.index import open_shards
from pipeline.data.shards.read import TarReader
from pipeline.jobs import execute
from pipeline.models.info import ModelInfo
from pipeline.results import bootstrap
from pipeline.results.collect import Cell
from pipeline.runs.folder import Run

FLIPS = int(os.environ.get("FLIPS", "200"))


class Site:
    """A finished pretraining run, a finished fine-tune of it, shards and their pixel map."""

    def __init__(self, folder: Path) -> None:
        self.shards = tiny.make_shards(folder)
        self.cluster = tiny.make_cluster(folder, scratch_in_ram=True)
        self.child_spec = tiny.make_finetune(self.shards, tiny.make_pretrain(self.shards))
        self.parent = tiny.announce(self.child_spec.pretrain, self.cluster)
        self.parent["weights"].write_bytes(np.random.default_rng(0).bytes(200_000))
        self.parent.finish(finished.result(self.child_spec.pretrain, {}))
        self.child = finished.finish(self.child_spec, self.cluster, self.shards)
        self.result = self.child.result()
        self.pixels = np.array(open_pixels(self.shards, self.cluster).pixels)
        (self.map,) = Path(self.cluster.scratch).glob("*.u8")
        self.inputs = execute.inputs(self.child_spec, self.cluster)
        self.info = ModelInfo.of_run(self.child)
        self.interval = bootstrap.cell_interval(self.cell())
        assert self.interval is not None

    def cell(self) -> Cell:
        cell = Cell("mine", "tiny", ("row",), "100%", "balanced_accuracy", self.child_spec)
        run = Run(self.child.folder)
        cell.runs[77], cell.results[77] = run, self.result
        return cell


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("flips"))


def parent_weights(site: Site, where: Path) -> str:
    with pytest.raises(execute.ParentDamaged, match="weights.safetensors was changed"):
        execute.inputs(site.child_spec, site.cluster)
    assert Run(site.parent.folder).state() == "damaged"
    return "found"


def own_weights(site: Site, where: Path) -> str:
    with pytest.raises(seals.Damaged, match="weights.safetensors was changed"):
        ModelInfo.of_run(Run(site.child.folder))
    return "found"


def predictions(site: Site, where: Path) -> str:
    cell = site.cell()
    assert bootstrap.cell_interval(cell) is None and "predictions.parquet was changed" in cell.damage[77]
    with pytest.raises(ValueError, match="predictions.parquet was changed"):
        ModelInfo.of_run(Run(site.child.folder))
    return "found"


def result(site: Site, where: Path) -> str:
    run = Run(site.child.folder)
    if run.state() == "damaged":
        assert "result.json" in run.reason()
        return "found"
    assert run.result() == site.result  # a bit of the layout
    return "harmless"


def pixels(site: Site, where: Path) -> str:
    with pytest.raises(pixel_map.DamagedMap, match="were changed after they were written"):
        open_pixels(site.shards, site.cluster)
    assert not site.map.exists()
    assert (np.asarray(open_pixels(site.shards, site.cluster).pixels) == site.pixels).all()
    return "found"


def sums(site: Site, where: Path) -> str:
    before = where.read_bytes()
    found = open_pixels(site.shards, site.cluster)
    assert isinstance(found, PixelMap) and (np.asarray(found.pixels) == site.pixels).all()
    return "harmless" if where.read_bytes() == before else "found"  # the map was built again


def tar(site: Site, where: Path) -> str:
    out = np.empty_like(site.pixels)
    try:
        TarReader(open_shards(site.shards.folder)).read(range(len(out)), out)
    except ValueError as error:
        assert where.name in str(error)
        return "found"
    assert (out == site.pixels).all()  # a bit that no image has
    return "harmless"


def index(site: Site, where: Path) -> str:
    with pytest.raises(seals.Damaged, match="index.parquet was changed"):
        execute.inputs(site.child_spec, site.cluster)
    with pytest.raises(seals.Damaged, match="index.parquet was changed"):
        open_shards(site.shards.folder).of_split("train")
    return "found"


def manifest(site: Site, where: Path) -> str:
    try:
        found = open_shards(site.shards.folder)
    except ValueError as error:
        assert "manifest.json" in str(error)
        return "found"
    assert found.manifest == site.shards.manifest
    return "harmless"


def test_flipped_bits_change_no_number(site: Site) -> None:
    tars = sorted(site.shards.folder.glob("*.tar"))
    cases = [
        (parent_weights, [site.parent["weights"]]),
        (own_weights, [site.child["weights"]]),
        (predictions, [site.child["predictions"]]),
        (result, [site.child["result"]]),
        (pixels, [site.map]),
        (sums, [pixel_map.sums_of(site.map)]),
        (tar, tars),
        (index, [site.shards.folder / "index.parquet"]),
        (manifest, [site.shards.folder / "manifest.json"]),
    ]
    chance = random.Random(17)
    found: Counter[tuple[str, str]] = Counter()
    for number in range(FLIPS):
        reader, paths = cases[number % len(cases)]
        path = chance.choice(paths)
        with flipped(path, chance) as what:
            try:
                found[reader.__name__, reader(site, path)] += 1
            except BaseException as error:
                raise AssertionError(f"flip {number}, {what}: {error!r}") from error
        for run in (site.parent, site.child):
            run["damaged"].unlink(missing_ok=True)
    assert site.child.state() == site.parent.state() == "done"
    assert execute.inputs(site.child_spec, site.cluster) == site.inputs
    assert ModelInfo.of_run(site.child) == site.info and bootstrap.cell_interval(site.cell()) == site.interval
    always = ("parent_weights", "own_weights", "predictions", "pixels", "index", "sums")
    assert all(found[name, "found"] and not found[name, "harmless"] for name in always)
    assert all(found[name, "found"] for name in ("result", "tar", "manifest"))
