"""Slides to tiles: where tiles are, which are tissue, how many, and the drawn sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_shards
from PIL import Image
from slides_drawn import CELL, save, scan_of
from small_shards import rows_of, written

from pipeline.core.console import silent
from pipeline.data import images
from pipeline.data.decoders.formats import BadImage
from pipeline.data.formats import files, kinds, reading, slides
from pipeline.data.formats.reading import Found, Reading, Secret
from pipeline.data.layouts import UserDataset
from pipeline.data.shards import sheets
from pipeline.data.shards.plan import make_plan
from pipeline.data.shards.transcode import AUTO, ShardSettings


def find(path: Path, **choices: Any) -> Found | BadImage:
    return files.find_images((path, kinds.SLIDE), reading=Reading(**choices), secret=Secret(b"", False))


TISSUE = [(column, row) for row in range(1, 5) for column in range(2, 7)]


def test_tiles_of_tissue_are_found_at_a_level_and_at_micrometres_a_pixel(tmp_path: Path) -> None:
    path = save(tmp_path / "slide", scan_of())
    for tiles in ("level=0", "mpp=0.5"):
        found = find(path, tiles=tiles, tile_side=CELL)
        assert isinstance(found, Found) and list(found.parts) == TISSUE and found.kind == "slide"
    coarse = find(path, tiles="mpp=1", tile_side=CELL)  # 128 pixels of the finest level
    assert isinstance(coarse, Found)
    assert list(coarse.parts) == [(column, row) for row in range(3) for column in range(1, 4)]
    over = find(path, tiles="level=0", tile_side=CELL, tile_overlap=CELL // 2)
    assert isinstance(over, Found) and (5, 3) in over.parts and (0, 0) not in over.parts


def test_at_most_so_many_tiles_of_a_slide_are_taken_always_the_same(tmp_path: Path) -> None:
    path = save(tmp_path / "slide", scan_of())
    first, again = (find(path, tiles="level=0", tile_side=CELL, tiles_most=6) for _ in range(2))
    assert isinstance(first, Found) and first == again
    assert len(first.parts) == 6 and set(first.parts) < set(TISSUE)


def test_a_slide_of_more_tiles_than_are_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "slide", scan_of())
    monkeypatch.setattr(reading, "MOST", 19)
    assert str(find(path, tiles="level=0", tile_side=CELL)) == "holds 20 images, more than 19"
    assert isinstance(find(path, tiles="level=0", tile_side=CELL, tiles_most=19), Found)
    monkeypatch.setattr(slides, "MAX_GRID", 95)
    assert "is a slide of 12 × 8 tiles, too many" in str(find(path, tiles="level=0", tile_side=CELL))


def test_what_no_tile_can_be_taken_of_is_refused(tmp_path: Path) -> None:
    white = save(tmp_path / "white", np.full((512, 512, 3), 250, np.uint8))
    assert str(find(white, tiles="level=0", tile_side=CELL)) == "is a slide without a tile that is not background"
    bare = save(tmp_path / "bare", scan_of(), mpp=None)
    reason = str(find(bare, tiles="mpp=0.5", tile_side=CELL))
    assert reason == "is a slide that does not say its micrometres a pixel; give --tiles level=N"
    assert str(find(bare, tiles="level=7")) == "is a slide of 2 levels; --tiles asks for level 7"
    Image.fromarray(scan_of()).save(tmp_path / "plain.tif")
    assert find(tmp_path / "plain.tif", tiles="level=0") == Found()  # it is read as it always was
    for wrong in ("mpp", "mpp=0", "level=-1", "20x", ""):
        with pytest.raises(ValueError, match="--tiles is"):
            Reading(tiles=wrong)


def test_slides_are_sharded_by_slide_with_a_sheet_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards.work_inline(monkeypatch)
    monkeypatch.setattr(sheets, "Workers", small_shards.Inline)
    wanted = {}
    for number in range(3):
        path = save(tmp_path / "raw" / "ab"[number % 2] / f"{number}.tif", scan_of(number))
        wanted[path] = scan_of(number)
    reading = Reading(tiles="mpp=0.5", tile_side=CELL)
    settings = ShardSettings(size=CELL, split=AUTO, format="png", quality=None, keep_names=False, reading=reading)
    plan = make_plan(UserDataset("mine", "folder"), tmp_path / "raw", settings, workers=1, progress=silent)
    assert len(plan.samples) == 60 and len({sample.group for sample in plan.samples}) == 3
    assert plan.settings.to_json()["tiles"] == "mpp=0.5" and "frames" not in plan.settings.to_json()
    shards = written(plan, tmp_path / "out")
    samples = {sample.key: sample.record for sample in plan.samples}
    for row in rows_of(shards):
        record = samples[row["key"]]
        data = (shards.folder / row["tar"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
        column, line = record.part
        tile = wanted[record.path][line * CELL : (line + 1) * CELL, column * CELL : (column + 1) * CELL]
        assert (images.decode_stored(data) == tile).all()
    drawn = sorted((shards.folder / sheets.SLIDES).iterdir())
    assert [path.stem for path in drawn] == sorted({sample.checksum[:12] for sample in plan.samples})
    sheet = np.asarray(Image.open(drawn[0]))
    assert sheet.shape == (512, 768, 3) and (sheet[CELL, 2 * CELL + 5] == 0).all() and (sheet[10, 10] == 255).all()
