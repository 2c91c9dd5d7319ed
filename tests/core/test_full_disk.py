"""A disk that is full, at twenty points of each kind of work: an error that names the path, nothing half written, and
the same work continues with the same bits once there is room."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import finished
import pytest
import tiny
from commands import command

from pipeline.core import disks, files
from pipeline.data.shards.index import open_shards
from pipeline.jobs import execute
from pipeline.jobs.plan import make_plan
from pipeline.results import report
from pipeline.runs.folder import Run

POINTS = 20
DISK = 64 << 20  # bytes
KIB = 1 << 10


class SmallDisk:
    """A mounted disk of 64 MB with a file that leaves as much room as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ballast = folder / "ballast"

    def leave(self, room: int) -> None:
        """Leave `room` bytes free."""
        self.ballast.unlink(missing_ok=True)
        free = os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_bsize
        with open(self.ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free - room))

    def empty(self) -> None:
        self.ballast.unlink(missing_ok=True)

    def half_written(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob(".*.tmp"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], capture_output=True)
    if mounting.returncode:
        pytest.skip("this machine mounts no disk for a test")
    yield SmallDisk(folder)
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory):
    return tiny.make_shards(tmp_path_factory.mktemp("full"), each=20)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def fill(disk: SmallDisk, needed: int, work: Callable[[], str]) -> int:
    """Do the work with the disk full at twenty points; `work` returns an error's text, which must name a path there.

    Returns at how many points the disk was full.
    """
    failed = 0
    for point in range(POINTS):
        disk.leave(needed * point // POINTS)
        if said := work():
            failed += 1
            assert str(disk.folder) in said or "output goes" in said, said
            assert "the disk is full" in said and "\n" not in said.strip(), said
        assert disk.half_written() == []
    disk.empty()
    assert work() == ""
    return failed


def test_shards(disk: SmallDisk, shards, tmp_path: Path) -> None:
    wanted = contents(shards.folder)
    raw = shards.folder.parent.parent / "raw"

    def work() -> str:
        done = command(
            "shard", "tiny", "--raw", raw, "--layout", "folder", "--out", disk.folder, "--size", 32, "--workers", 1,
            "--format", "png", cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode in (0, 2), done.stderr
        return done.stderr if done.returncode else ""

    assert fill(disk, sum(map(len, wanted.values())) + 30 * KIB, work) >= 5
    (made,) = disk.folder.glob("tiny-*")
    assert open_shards(made).fingerprint == shards.fingerprint
    found = contents(made)
    tars = [name for name in wanted if name.endswith((".tar", ".parquet"))]
    assert tars and {name: found.get(name) for name in tars} == {name: wanted[name] for name in tars}


def test_a_run(disk: SmallDisk, shards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tiny.make_pretrain(shards, epochs=2)
    site = tiny.make_cluster(tmp_path, shards=str(shards.folder.parent))
    reference = tiny.announce(spec, site)
    assert execute.execute_run(reference) == 0
    needed = 3 * reference["weights"].stat().st_size * 2
    run = tiny.announce(spec, dataclasses.replace(site, runs=str(disk.folder)))

    def work() -> str:
        run["error"].unlink(missing_ok=True)  # as launch --retry does
        try:
            code = execute.execute_run(Run(run.folder))
        except OSError as error:  # not even the lock file has room
            return disks.error_text(error)
        printed = capsys.readouterr().err.strip().splitlines()
        return (run.reason() or printed[-1]) if code else ""

    assert fill(disk, needed, work) >= 3
    assert run["weights"].read_bytes() == reference["weights"].read_bytes()


def test_scratch(disk: SmallDisk, shards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.data.pixel_map import open_pixels

    site = tiny.make_cluster(tmp_path, shards=str(shards.folder.parent), scratch=str(disk.folder), scratch_in_ram=True)
    pixels = len(shards.rows["key"]) * 32 * 32 * 3
    full = 0
    for point in range(POINTS):
        disk.leave(pixels * 20 * point // POINTS)
        assert len(open_pixels(shards, site)) == len(shards.rows["key"])
        full += "no room in" in capsys.readouterr().err
        assert disk.half_written() == []
        for path in disk.folder.glob("*.u8"):
            path.unlink()
    assert full >= 1


def test_a_report(disk: SmallDisk, shards, tmp_path: Path) -> None:
    grid = finished.make_grid(tmp_path, shards)
    out = disk.folder / "reports"
    made = report.make_report(make_plan(str(grid), tiny.make_cluster(tmp_path, shards=str(shards.folder.parent))))
    report.write_report(made, tmp_path / "wanted")
    wanted = contents(tmp_path / "wanted")

    def work() -> str:
        before = contents(out) if out.exists() else {}
        done = command("report", "--grid", "mine.py", "--cluster", "here.toml", "--out", out, cwd=tmp_path)
        assert done.returncode in (0, 2), done.stderr
        assert all(text == wanted[name] for name, text in {**before, **contents(out)}.items() if text)
        return done.stderr if done.returncode else ""

    assert fill(disk, sum(map(len, wanted.values())) + 20 * KIB, work) >= 3
    assert contents(out) == wanted


def test_a_read_only_disk(disk: SmallDisk, shards, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk.folder], check=True)
    raw = shards.folder.parent.parent / "raw"
    done = command("shard", "tiny", "--raw", raw, "--layout", "folder", "--out", disk.folder / "out", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"error: {disk.folder}" in done.stderr and "read-only" in done.stderr


def test_a_folder_that_is_a_file(shards, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    raw = shards.folder.parent.parent / "raw"
    done = command("shard", "tiny", "--raw", raw, "--layout", "folder", "--out", "out", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "out" in done.stderr, done.stderr
    assert files.read_jsonl(tmp_path / "none") == []
