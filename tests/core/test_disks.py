"""Which file system holds a path, by the list of mounts."""

from __future__ import annotations

from pathlib import Path

from pipeline.core import disks
from pipeline.core.disks import Mount, mount_of


def test_the_file_system_of_a_folder_is_known(tmp_path) -> None:
    assert mount_of(Path("/proc/self")).kind == "proc"
    assert mount_of(tmp_path).kind not in ("", "proc")


def test_the_longest_mount_point_counts_and_of_two_at_one_point_the_later(tmp_path, monkeypatch) -> None:
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(disks, "MOUNTS", mounts)
    spaced = "/data/my\\040disk"  # as the kernel writes a space
    mounts.write_text(f"a / ext4 rw 0 0\nb /data xfs rw 0 0\nc /data nfs4 rw 0 0\nd {spaced} tmpfs rw 0 0\n")
    assert mount_of(Path("/data/runs")) == Mount("/data", "nfs4")
    assert mount_of(Path("/data/my disk/runs")) == Mount("/data/my disk", "tmpfs")
    assert mount_of(Path("/database")) == Mount("/", "ext4")


def test_a_system_that_does_not_tell_gives_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(disks, "MOUNTS", tmp_path / "mounts")
    assert mount_of(tmp_path) == Mount("", "")
