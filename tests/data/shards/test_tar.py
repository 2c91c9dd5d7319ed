"""Tars are plain, have the same bytes every time, and their writer knows the position of each member."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from pipeline.data.shards import tar as tars
from pipeline.data.shards.tar import TarWriter

LONG = "folder_" * 30 + ".jpg"  # longer than the 100 characters of a plain header
MEMBERS = {"a.jpg": b"x", "a.json": b"", "b.jpg": bytes(range(256)) * 2, "b.json": b"{}" * 700, LONG: b"long"}


def write() -> tuple[bytes, dict[str, int]]:
    file = io.BytesIO()
    writer = TarWriter(file)
    offsets = {name: writer.add(name, data) for name, data in MEMBERS.items()}
    writer.close()
    return file.getvalue(), offsets


def test_any_reader_of_tars_reads_them() -> None:
    data, offsets = write()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        assert {member.name: tar.extractfile(member).read() for member in members} == MEMBERS  # type: ignore[union-attr]
        assert {member.name: member.offset_data for member in members} == offsets


def test_the_offset_is_the_position_of_the_bytes() -> None:
    data, offsets = write()
    for name, content in MEMBERS.items():
        assert data[offsets[name] : offsets[name] + len(content)] == content


def test_the_tar_of_the_system_reads_them(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(write()[0])
    listed = subprocess.run(["tar", "-tf", "x.tar"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert listed.stdout.split() == list(MEMBERS)
    assert not listed.stderr


def test_headers_hold_no_time_owner_or_host() -> None:
    with tarfile.open(fileobj=io.BytesIO(write()[0])) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert member.mode == 0o444


def test_the_same_members_give_the_same_bytes() -> None:
    assert write() == write()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 8704, 9216, 9728])
def test_a_tar_ends_as_tars_do(size: int) -> None:
    file = io.BytesIO()
    writer = TarWriter(file)
    writer.add("a", bytes([1]) * size)
    writer.close()
    data = file.getvalue()
    assert len(data) % tarfile.RECORDSIZE == 0
    assert data.endswith(bytes(2 * tarfile.BLOCKSIZE))
    assert len(data) < size + 512 + 512 + 1024 + tarfile.RECORDSIZE


@pytest.mark.parametrize("size", [0, 7, 512, 8**11 - 1, 8**11])
@pytest.mark.parametrize("name", ["a.jpg", "x" * 100, "x" * 101, LONG, "größe.jpg"])
def test_headers_are_those_of_tarfile(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    plain = len(name) <= 100 and name.isascii() and size < 8**11
    wanted = info.tobuf(tarfile.USTAR_FORMAT if plain else tarfile.PAX_FORMAT)
    assert tars.header(name, size) == wanted
