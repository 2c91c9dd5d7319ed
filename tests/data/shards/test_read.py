"""Images read from the tars are checked against the index, and both decoders give the same pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import seven_images
from PIL import Image

from pipeline.data import images
from pipeline.data.shards.index import Shards
from pipeline.data.shards.read import TarReader, read_pixels


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return seven_images.make_shards(tmp_path)


@pytest.fixture
def stored_images() -> np.ndarray:
    return seven_images.IMAGES


def test_a_few_images_come_straight_from_the_tars(shards, stored_images) -> None:
    assert (read_pixels(shards, [5, 0, 2]) == stored_images[[5, 0, 2]]).all()
    assert read_pixels(shards, []).shape == (0, 12, 12, 3)
    (shards.folder / "val-000000.tar").write_bytes(bytes(9000))
    with pytest.raises(ValueError, match="val-000000.tar: the bytes of p5 are not those that were written"):
        read_pixels(shards, [0, 5])


def test_all_images_come_in_blocks(shards, stored_images) -> None:
    out = np.zeros_like(stored_images)
    assert list(TarReader(shards).blocks(out, size=3)) == [3, 3, 1]
    assert (out == stored_images).all()


def _decoded(data: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """By simplejpeg and by Pillow."""
    fast = images.decode_stored(data)
    with monkeypatch.context() as without:
        without.setattr(images, "simplejpeg", None)
        return fast, images.decode_stored(data)


@pytest.mark.parametrize("side", [(31, 17), (64, 64), (8, 33)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [40, 95])
def test_both_decoders_give_the_same_bytes(side, subsampling, quality, monkeypatch) -> None:
    assert images.simplejpeg is not None
    array = np.random.default_rng(0).integers(0, 256, (*side, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(array).save(out, "JPEG", quality=quality, subsampling=subsampling)
    fast, slow = _decoded(out.getvalue(), monkeypatch)
    assert (fast == slow).all()


def test_both_decoders_give_the_same_bytes_of_real_images(shared, monkeypatch) -> None:
    for path in sorted((shared / "isic2019").rglob("*.jpg"))[:50]:
        data = images.encode(images.decode(path.read_bytes()).pixels, format="jpeg", quality=95)
        fast, slow = _decoded(data, monkeypatch)
        assert (fast == slow).all(), path.name


def test_pixels_are_written_to_the_given_place() -> None:
    array = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for format in ("jpeg", "png", "webp"):
        data = images.encode(array, format=format, quality=None)
        out = np.zeros((2, 16, 16, 3), dtype=np.uint8)
        images.decode_stored(data, out[1])
        assert (out[1] == images.decode_stored(data)).all() and not out[0].any()
