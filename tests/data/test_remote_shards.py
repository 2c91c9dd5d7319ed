"""Shards behind an address give the images, the order and the runs of local ones, at every size of scratch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kill
import numpy as np
import pytest
import tiny
import torch
from stops import StopAt
from web_server import WebServer, serving

from pipeline.data import scratch, staged
from pipeline.data.pixel_map import PixelMap, Pixels, open_pixels
from pipeline.data.shards import remote
from pipeline.data.shards.index import Shards, open_shards
from pipeline.data.shards.read import TarReader, read_pixels
from pipeline.jobs import execute
from pipeline.learn.samples import Samples
from pipeline.runs import cluster
from pipeline.runs.cluster import Cluster

COUNT, SIDE = 90, 32


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    return tiny.make_shards(tmp_path_factory.mktemp("local"))


@pytest.fixture
def server(local: Shards, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    with serving(local.folder.parent) as server:
        yield server


@pytest.fixture
def site(local: Shards, server: WebServer, tmp_path: Path) -> Cluster:
    """A site whose cluster file has an address for shards."""
    address = f"{server.address}/{local.folder.name}"
    paths = {name: str(tmp_path / name) for name in ("runs", "scratch", "weights")}
    return cluster.from_json({**paths, "shards": address, "scratch_in_ram": True, "device": "cpu"})


def shards_at(site: Cluster) -> Shards:
    remote.copy_small_files(site.shards_from, Path(site.shards))
    (folder,) = (path for path in Path(site.shards).iterdir() if path.is_dir())
    return open_shards(folder)


def smaller(site: Cluster, size: int) -> Cluster:
    return dataclasses.replace(site, scratch_gb=size / 1e9)


def every(pixels: Pixels) -> np.ndarray:
    if isinstance(pixels, PixelMap):
        return np.asarray(pixels.pixels)
    out = np.zeros((len(pixels), SIDE, SIDE, 3), np.uint8)
    pixels.read(np.random.default_rng(0).permutation(len(pixels)), np.empty_like(out))
    pixels.read(np.arange(len(pixels)), out)
    return out


def kept(site: Cluster) -> list[Path]:
    return [path for ending in scratch.KEPT for path in Path(site.scratch).glob(f"*.{ending}")]


def stored(local: Shards) -> int:
    return sum(local.rows["size"])


def test_a_cluster_file_may_have_addresses(tmp_path: Path) -> None:
    found = cluster.from_json({"shards": "https://host/a/{one,two}-32/", "runs": str(tmp_path)})
    assert found.shards_from == ("https://host/a/one-32", "https://host/a/two-32")
    assert Path(found.shards).parent == tmp_path
    assert cluster.from_json(cluster.to_json(found)) == found
    assert "shards_from" not in cluster.to_json(Cluster())
    assert remote.http_address("s3://box/a/b") == "https://box.s3.amazonaws.com/a/b"
    with pytest.raises(ValueError, match="give a folder, http://"):
        remote.Web("ftp://host/a")


def test_manifest_and_index_are_copied_once_and_compared(site: Cluster, local: Shards, server: WebServer) -> None:
    shards = shards_at(site)
    assert shards.fingerprint == local.fingerprint and shards.index_checksum == local.index_checksum
    asked = len(server.asked)
    assert shards_at(site).manifest == shards.manifest and len(server.asked) == asked == 2
    wrong = dataclasses.replace(site, shards_from=(f"{server.address}/none",))
    with pytest.raises(ValueError, match=r"none/manifest\.json cannot be read \(404"):
        remote.copy_small_files(wrong.shards_from, Path(wrong.shards))


def test_images_are_read_by_range_and_neighbours_together(site: Cluster, local: Shards, server: WebServer) -> None:
    reader = TarReader(shards_at(site))
    before = len(server.asked)
    server.fails = 2
    assert (every(reader) == read_pixels(local, range(COUNT))).all()
    out = np.empty((COUNT, SIDE, SIDE, 3), np.uint8)
    server.asked.clear()
    assert sum(reader.blocks(out)) == COUNT and (out == read_pixels(local, range(COUNT))).all()
    assert before == 2 and len(server.asked) < COUNT / 5


def test_where_a_map_fits_it_is_made_and_nothing_else(site: Cluster, local: Shards, server: WebServer) -> None:
    pixels = open_pixels(shards_at(site), site)
    assert isinstance(pixels, PixelMap) and (every(pixels) == read_pixels(local, range(COUNT))).all()
    assert not list(Path(site.scratch).glob("*.images"))


def test_where_only_the_tars_fit_they_are_copied_once_and_evicted_as_maps(
    site: Cluster, local: Shards, server: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    small = smaller(site, stored(local) + 1000)
    assert stored(local) + 1000 < COUNT * SIDE**2 * 3
    pixels = open_pixels(shards_at(site), small)
    assert isinstance(pixels.source, staged.Staged)  # type: ignore[union-attr]
    assert "from a copy of the tars on scratch" in capsys.readouterr().err
    asked = len(server.asked)
    again = open_pixels(shards_at(site), small)
    assert (every(again) == read_pixels(local, range(COUNT))).all() and len(server.asked) == asked
    (copy,) = Path(site.scratch).glob("*.images")
    with pytest.raises(scratch.NoRoom):
        scratch.make_room(Path(site.scratch), stored(local), stored(local) + 1000)  # it is open
    pixels.source.file.close()  # type: ignore[union-attr]
    again.source.file.close()  # type: ignore[union-attr]
    with pytest.raises(scratch.NoRoom):
        scratch.make_room(Path(site.scratch), 2 * stored(local), stored(local))
    assert copy.exists(), "nothing is deleted in vain"
    scratch.make_room(Path(site.scratch), stored(local), stored(local) + 1000)
    assert not copy.exists()


def test_damage_of_a_copy_and_of_a_server_is_found(
    site: Cluster, local: Shards, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = smaller(site, stored(local) + 1000)
    pixels = open_pixels(shards_at(site), small)
    (copy,) = Path(site.scratch).glob("*.images")
    data = bytearray(copy.read_bytes())
    data[stored(local) // 2] ^= 1
    copy.write_bytes(data)
    again = open_pixels(shards_at(site), small)
    with pytest.raises(staged.DamagedCopy, match=r"\.images: the bytes of .* were changed after they were copied"):
        every(pixels)
    assert not copy.exists()
    whole = open_pixels(shards_at(site), small)
    assert (every(whole) == read_pixels(local, range(COUNT))).all()
    with pytest.raises(staged.DamagedCopy):
        every(again)
    assert copy.exists(), "it is made again already"
    copy.unlink()
    monkeypatch.setattr(remote.Web, "read", lambda self, name, span: bytes(span[1] - span[0]))
    with pytest.raises(ValueError, match=r"http://.*\.tar: the bytes of .* are not those that were written"):
        open_pixels(shards_at(site), small)
    assert not list(Path(site.scratch).glob("*.images"))


def test_a_run_continues_where_its_copy_is_found_damaged(
    site: Cluster, local: Shards, server: WebServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = iter([staged.DamagedCopy("x.images is deleted"), "done"])

    def train(run: object, stop: object) -> object:
        if isinstance(outcome := next(outcomes), Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(execute, "_train", train)
    assert execute._train_on_whole_map(None, lambda: False) == "done"  # type: ignore[arg-type,comparison-overlap]
    assert "x.images is deleted; this run continues from its last checkpoint" in capsys.readouterr().out


def test_a_damaged_copy_of_another_user_is_left_and_one_of_ones_own_is_made(
    site: Cluster, local: Shards, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(path: Path, **how: object) -> None:
        raise PermissionError

    small = smaller(site, 3 * stored(local))
    monkeypatch.setattr(staged, "_of_others", set())
    reader = staged.open_staged(TarReader(shards_at(site)), small)
    (copy,) = Path(site.scratch).glob("*.images")
    copy.write_bytes(bytes(stored(local)))
    with monkeypatch.context() as patched, pytest.raises(staged.DamagedCopy):
        patched.setattr(Path, "unlink", refuses)
        reader.checked_bytes(0)
    own = staged.open_staged(TarReader(shards_at(site)), small)
    assert (every(own) == read_pixels(local, range(COUNT))).all()
    assert len(list(Path(site.scratch).glob("*.images"))) == 2


def test_a_copy_killed_half_way_is_made_again(site: Cluster, local: Shards, server: WebServer) -> None:
    small, shards = smaller(site, stored(local) + 1000), shards_at(site)
    code = (
        "import os, signal, sys; from pathlib import Path; from pipeline.data import pixel_map\n"
        "from pipeline.data.shards import read; from pipeline.data.shards.index import open_shards\n"
        "from pipeline.runs.cluster import Cluster; real, left = read.TarReader.checked_bytes, [40]\n"
        "def checked_bytes(self, row):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(self, row)\n"
        "read.TarReader.checked_bytes = checked_bytes\n"
        "site = Cluster(scratch=sys.argv[2], scratch_in_ram=True, scratch_gb=float(sys.argv[3]))\n"
        "pixel_map.open_pixels(open_shards(Path(sys.argv[1])), site)"
    )
    command = [sys.executable, "-c", code, str(shards.folder), site.scratch, str(small.scratch_gb)]
    assert subprocess.run(command, capture_output=True).returncode == -9
    assert not list(Path(site.scratch).glob("*.images")) and list(Path(site.scratch).glob(".*.images.*.tmp"))
    assert (every(open_pixels(shards, small)) == read_pixels(local, range(COUNT))).all()
    assert not list(Path(site.scratch).glob(".*.images.*.tmp"))


def test_a_slow_disk_of_this_machine_is_copied_from_too(
    local: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Cluster(scratch=str(tmp_path), scratch_in_ram=True, scratch_gb=(stored(local) + 1000) / 1e9)
    assert not isinstance(open_pixels(local, site).source, staged.Staged)  # type: ignore[union-attr]
    monkeypatch.setattr(staged.disks, "mount_of", lambda path: staged.disks.Mount("/", "nfs4"))
    pixels = open_pixels(local, site)
    assert isinstance(pixels.source, staged.Staged)  # type: ignore[union-attr]
    assert (every(pixels) == read_pixels(local, range(COUNT))).all()


def test_where_nothing_fits_batches_come_in_their_order_read_ahead(
    site: Cluster, local: Shards, server: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = open_pixels(shards_at(site), smaller(site, stored(local) // 10))
    assert "and read ahead of need" in capsys.readouterr().err and not kept(site)
    rows, cpu = np.arange(70), torch.device("cpu")
    ours, theirs = (Samples(each, rows, cpu) for each in (pixels, TarReader(local)))
    for epoch in range(2):
        for step in range(9):
            (one, got), (two, wanted) = (each.step(7, epoch, step, 8) for each in (ours, theirs))
            assert (one == two).all() and torch.equal(got, wanted)
            if step == 0:
                assert len(pixels.source.waiting) >= 6 * 8, "later steps are asked for"  # type: ignore[union-attr]
    assert sum(path.endswith(".tar") for _, path in server.asked) <= 2 * 70, "no image is asked for twice"


def test_what_is_too_much_to_be_kept_is_read_later_and_once(
    site: Cluster, local: Shards, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MOST", 20)
    monkeypatch.setattr(remote, "GAP", -1)  # each image alone
    tars = remote.RemoteTars(shards_at(site), f"{server.address}/{local.folder.name}")
    read, order = [], [int(row) for row in np.random.default_rng(0).permutation(COUNT)]
    monkeypatch.setattr(tars.web, "read", lambda name, span: read.append((name, span)) or bytes(span[1] - span[0]))
    tars.expect(range(80, COUNT))  # never asked for
    for place in range(0, 80, 8):
        tars.expect([row for row in order if row < 80][place : place + 40])
        for row in [row for row in order if row < 80][place : place + 8]:
            assert len(tars.bytes_of(row)) == local.rows["size"][row]
            assert len(tars.waiting) <= 20
    assert len(read) == len(set(read)) == COUNT
    tars.pool.shutdown()


def test_a_run_that_is_stopped_again_and_again_ends_with_the_weights_of_local_shards(
    site: Cluster, local: Shards, server: WebServer, tmp_path: Path
) -> None:
    spec = tiny.make_pretrain(local, epochs=1)
    here = tiny.make_cluster(tmp_path / "here", shards=str(local.folder.parent), scratch_in_ram=True, probes=False)
    calm = tiny.announce(spec, here)
    assert execute.execute_run(calm) == 0
    far = dataclasses.replace(smaller(site, stored(local) // 10), probes=False, checkpoint_minutes=0.0)
    shards_at(far)
    run = tiny.announce(spec, far)
    for call in (3, 5):
        server.fails = 1
        assert execute.execute_run(run, StopAt(call)) == execute.STOPPED
    assert execute.execute_run(run) == 0
    assert kill.differences(run, calm) == []
    assert not kept(site)


@pytest.mark.slow
def test_a_run_that_is_killed_ends_with_the_weights_of_local_shards(tmp_path: Path) -> None:
    import kill_remote

    assert kill_remote.main(tmp_path, kills=2, epochs=3, seed=1) == []


def test_a_plan_finds_the_datasets_behind_an_address(site: Cluster, local: Shards) -> None:
    from pipeline.jobs.datasets import find_datasets
    from pipeline.study.setting import Chosen

    (info,), commands = find_datasets([Chosen("tiny", "image")], site, size=SIDE)
    assert info.ref == tiny.ref(local) and not commands
    with pytest.raises(ValueError, match="have the split image, and the grid asks for grouped; write tiny:image"):
        find_datasets([Chosen("tiny", "grouped")], site, size=SIDE)
