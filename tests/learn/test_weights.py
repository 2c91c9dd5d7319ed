"""ImageNet weights are searched in the site's folder, then in the cache of the hub; a spec says which a run needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.learn.weights import imagenet_tags, weights_file
from pipeline.runs.spec import DatasetRef
from pipeline.study import paper, recipes

TAG = "resnet18.a1_in1k"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; returns HF_HOME."""
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf"


def fill(cache: Path) -> Path:
    """Put weights into a cache laid out as huggingface_hub's documentation says ("Understand caching")."""
    repository = cache / f"models--timm--{TAG}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "abc").write_bytes(b"cached")
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "snapshots" / commit / "model.safetensors").symlink_to("../../blobs/abc")
    return repository


def test_prefetched_weights_come_first(tmp_path: Path, hub: Path) -> None:
    fill(hub / "hub")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / f"{TAG}.safetensors").write_bytes(b"prefetched")
    assert weights_file(TAG, tmp_path / "weights").read_bytes() == b"prefetched"


def test_the_cache_of_the_hub_comes_next(tmp_path: Path, hub: Path) -> None:
    fill(hub / "hub")
    assert weights_file(TAG, tmp_path / "weights").read_bytes() == b"cached"


def test_the_cache_may_be_elsewhere(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "elsewhere")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    assert weights_file(TAG, tmp_path / "weights").read_bytes() == b"cached"


def test_the_error_for_missing_weights_names_the_command_that_fetches_them(tmp_path: Path, hub: Path) -> None:
    with pytest.raises(ValueError) as caught:
        weights_file(TAG, tmp_path / "weights")
    assert str(caught.value).startswith(f"the ImageNet weights of {TAG} are neither in {tmp_path / 'weights'}")
    assert str(caught.value).endswith(f"run: python -m pipeline.prefetch --tags {TAG}")


def test_an_incomplete_download_does_not_count(tmp_path: Path, hub: Path) -> None:
    repository = fill(hub / "hub")
    (repository / "blobs" / "abc").unlink()
    with pytest.raises(ValueError, match="are neither in"):
        weights_file(TAG, tmp_path / "weights")


def test_a_run_needs_the_imagenet_weights_that_it_starts_from_itself() -> None:
    ref, preset = DatasetRef(name="none", fingerprint="0" * 16), paper.preset("paper")
    cass = recipes.cass(ref, (paper.RESNET200, paper.VIT_B16), preset=preset, seed=77)
    assert imagenet_tags(cass) == {paper.VIT_B16.tag}
    assert imagenet_tags(recipes.finetune(ref, paper.VIT_B16, preset=preset, seed=77)) == {paper.VIT_B16.tag}
    assert imagenet_tags(recipes.finetune(ref, paper.VIT_B16, cass, preset=preset, seed=77)) == set()
    assert imagenet_tags(recipes.finetune(ref, paper.RESNET200, preset=preset, seed=77)) == set()
