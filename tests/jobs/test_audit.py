"""`verify` reads every byte of runs, shards and pixel maps, and names each damaged file with the next move."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import finished
import pytest
import tiny
from commands import command
from flips import flip

from pipeline.core import files
from pipeline.data.pixel_map import open_pixels, sums_of
from pipeline.data.shards.index import Shards
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return tiny.make_shards(tmp_path, each=10, unlabelled=3)


@pytest.fixture
def site(tmp_path: Path) -> Cluster:
    return tiny.make_cluster(tmp_path, scratch_in_ram=True)


@pytest.fixture
def run(shards: Shards, site: Cluster) -> Run:
    return finished.finish(tiny.make_finetune(shards, None), site, shards)


def verify(folder: Path, *arguments: object) -> tuple[int, list[str]]:
    ended = command("verify", *arguments, cwd=folder)
    return ended.returncode, (ended.stdout + ended.stderr).splitlines()


def test_what_is_whole_ends_with_0(tmp_path: Path, shards: Shards, site: Cluster, run: Run) -> None:
    open_pixels(shards, site)
    code, lines = verify(tmp_path, "--runs", "runs", "--shards", "shards", "--scratch", "scratch")
    assert (code, lines) == (
        0,
        [f"{place}: 1 checked in {place}, 0 damaged files" for place in ("runs", "shards", "scratch")],
    )


def test_damaged_files_of_runs_are_named_and_the_run_is_marked(tmp_path: Path, run: Run) -> None:
    flip(run["weights"], 12345)
    flip(run["predictions"], 99)
    code, lines = verify(tmp_path, "--runs")
    assert code == 1 and len(lines) == 3
    assert lines[0].startswith("damaged ") and "weights.safetensors was changed after it was written" in lines[0]
    assert "predictions.parquet was changed" in lines[1]
    assert all(line.endswith("; launch its grid with --retry to make it again") for line in lines[:2])
    assert Run(run.folder).state() == "damaged"
    assert verify(tmp_path, "--runs")[0] == 1


def test_runs_and_shards_of_earlier_code_are_listed(tmp_path: Path, shards: Shards, run: Run) -> None:
    files.write_json(run["result"], dataclasses.asdict(run.result()))
    manifest = json.loads((shards.folder / "manifest.json").read_text())
    files.write_json(shards.folder / "manifest.json", {k: v for k, v in manifest.items() if k not in ("seal", "files")})
    code, lines = verify(tmp_path, "--runs", "--shards")
    assert code == 0
    assert f"unsealed   {run.id} is of earlier code, which wrote no checksums" in lines
    assert f"unsealed   {shards.folder} is of earlier code: only its images have checksums" in lines


def test_damaged_shards_are_named(tmp_path: Path, shards: Shards) -> None:
    tar = shards.folder / shards.rows["tar"][0]
    flip(tar, 8 * (shards.rows["offset"][0] + 20))
    code, lines = verify(tmp_path, "--shards")
    assert code == 1 and f"the bytes of {shards.rows['key'][0]} are not those that were written; copy" in lines[0]
    tar.write_bytes(tar.read_bytes()[: shards.rows["offset"][0] + 40])
    code, lines = verify(tmp_path, "--shards")
    assert code == 1 and f"{tar.name} cannot be read" in lines[0]
    tar.unlink()
    assert verify(tmp_path, "--shards")[0] == 1
    flip(shards.folder / "index.parquet", 500)
    code, lines = verify(tmp_path, "--shards")
    assert code == 1 and "index.parquet was changed after it was written" in lines[0] and "copy the shards" in lines[0]


def test_a_damaged_map_is_deleted(tmp_path: Path, shards: Shards, site: Cluster) -> None:
    open_pixels(shards, site)
    (path,) = (tmp_path / "scratch").glob("*.u8")
    flip(path, 8000)
    code, lines = verify(tmp_path, "--scratch")
    assert code == 1 and f"{path.name} were changed after they were written; they are deleted" in lines[0]
    assert not path.exists() and not sums_of(path).exists()
    open_pixels(shards, site)
    sums_of(path).unlink()
    code, lines = verify(tmp_path, "--scratch")
    assert code == 0 and "without checksums; the next run builds it again" in lines[0]


@pytest.mark.parametrize("arguments", [[], ["isic"], ["isic", "--runs"], ["--raw", "x"], ["--runs", "--raw", "x"]])
def test_what_is_to_be_checked_must_be_clear(tmp_path: Path, arguments: list[str]) -> None:
    code, lines = verify(tmp_path, *arguments)
    assert code == 2 and lines == ["error: give a dataset and --raw, or some of --runs, --shards and --scratch"]


def test_an_empty_place_is_said(tmp_path: Path) -> None:
    code, lines = verify(tmp_path, "--scratch", "nowhere")
    assert code == 2 and lines == ["error: there is no pixel map in nowhere; give another folder, or --cluster"]
