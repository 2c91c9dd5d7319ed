"""ImageNet weights are looked for where they were fetched to, then in the hub's own cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.learn.weights import weights_file

TAG = "resnet18.a1_in1k"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; returns HF_HOME."""
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf"


def fill(cache: Path) -> Path:
    """The layout of huggingface_hub's cache: docs, "Understand caching"."""
    repository = cache / f"models--timm--{TAG}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "abc").write_bytes(b"cached")
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "snapshots" / commit / "model.safetensors").symlink_to("../../blobs/abc")
    return repository


def test_what_was_prefetched_comes_first(tmp_path: Path, hub: Path) -> None:
    fill(hub / "hub")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / f"{TAG}.safetensors").write_bytes(b"prefetched")
    assert weights_file(TAG, tmp_path / "weights").read_bytes() == b"prefetched"


def test_the_cache_of_the_hub_is_looked_at_next(tmp_path: Path, hub: Path) -> None:
    fill(hub / "hub")
    assert weights_file(TAG, tmp_path / "weights").read_bytes() == b"cached"


def test_the_cache_may_lie_elsewhere(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "elsewhere")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    assert weights_file(TAG, tmp_path / "weights").read_bytes() == b"cached"


def test_weights_that_are_nowhere_are_answered_with_the_command_that_fetches_them(tmp_path: Path, hub: Path) -> None:
    with pytest.raises(ValueError) as caught:
        weights_file(TAG, tmp_path / "weights")
    assert str(caught.value).startswith(f"the ImageNet weights of {TAG} are neither in {tmp_path / 'weights'}")
    assert str(caught.value).endswith(f"run: python -m pipeline.prefetch --tags {TAG}")


def test_a_download_that_never_ended_is_no_weights(tmp_path: Path, hub: Path) -> None:
    repository = fill(hub / "hub")
    (repository / "blobs" / "abc").unlink()
    with pytest.raises(ValueError, match="are neither in"):
        weights_file(TAG, tmp_path / "weights")
