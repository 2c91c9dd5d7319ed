"""Files are complete or absent, and a lock ends with the process that holds it."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from users import as_user

from pipeline.core import disks, files


def python(code: str, *args: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_file_gets_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "image.bin"
    with files.publish(path) as file:
        file.write(b"first half, ")
        file.flush()
        assert not path.exists()
        file.write(b"second half")
    assert path.read_bytes() == b"first half, second half"
    assert os.listdir(path.parent) == ["image.bin"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, {"epoch": 1})
    with files.publish(path, "w") as file:
        file.write('{"epoch": ')
        file.flush()
        assert files.read_json(path) == {"epoch": 1}
        file.write("2}")
    assert files.read_json(path) == {"epoch": 2}


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, {"epoch": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"epoch": object()})
    assert files.read_json(path) == {"epoch": 1}
    assert os.listdir(tmp_path) == ["value.json"]


def test_a_killed_writer_leaves_the_old_file_and_a_temporary_file_that_is_removed_later(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, {"epoch": 1})
    code = (
        "import os, signal, sys; from pathlib import Path; from pipeline.core import files\n"
        "with files.publish(Path(sys.argv[1]), 'w') as file:\n"
        "    file.write('{'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    with python(code, path) as writer:
        assert writer.wait() == -9
    assert files.read_json(path) == {"epoch": 1}
    assert len(os.listdir(tmp_path)) == 2
    files.remove_temporaries(tmp_path)
    assert os.listdir(tmp_path) == ["value.json"]


@pytest.mark.parametrize("durable", [True, False])
def test_json_is_read_as_it_was_written(tmp_path: Path, durable: bool) -> None:
    value = {"class": "nævus", "counts": [1, 2.5, None], "deep": {"true": True}}
    files.write_json(tmp_path / "value.json", value, durable=durable)
    assert files.read_json(tmp_path / "value.json") == value


def test_text_is_utf_8_whatever_the_locale_says(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.core import files\n"
        "files.write_json(Path(sys.argv[1]), {'class': 'n\\xe6vus'})"
    )
    with python(code, tmp_path / "value.json", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0") as writer:
        assert writer.wait() == 0
    assert "nævus".encode() in (tmp_path / "value.json").read_bytes()


def test_the_error_for_invalid_json_names_the_file_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_text('{"epoch": 1')
    with pytest.raises(ValueError, match=r"value\.json is not valid JSON .* delete it and run the command again"):
        files.read_json(path)


def test_rows_are_appended_and_an_incomplete_last_line_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert files.read_jsonl(path) == []
    files.append_jsonl(path, {"epoch": 0, "loss": 1.5})
    files.append_jsonl(path, {"epoch": 1, "loss": 1.25})
    with open(path, "a") as file:
        file.write('{"epoch": 2, "lo')
    assert files.read_jsonl(path) == [{"epoch": 0, "loss": 1.5}, {"epoch": 1, "loss": 1.25}]
    files.write_jsonl(path, [{"epoch": 7}])
    assert path.read_text() == '{"epoch": 7}\n'


def test_checksums_are_sha_256(tmp_path: Path) -> None:
    # the example of FIPS 180-2, B.1
    assert files.sha256_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    for size in (0, 3, 1 << 20, (1 << 20) + 1, 3 << 20):
        (tmp_path / "file").write_bytes(b"x" * size)
        assert files.sha256_file(tmp_path / "file") == hashlib.sha256(b"x" * size).hexdigest()


def test_the_error_for_a_held_lock_says_what_is_being_worked_on(tmp_path: Path) -> None:
    with files.lock(tmp_path / "lock", what="run 7"):
        with (
            pytest.raises(files.Busy, match="another process is at work on run 7; wait for it to end"),
            files.lock(tmp_path / "lock", what="run 7"),
        ):
            pass
    with files.lock(tmp_path / "lock"):
        assert files.is_locked(tmp_path / "lock")


def test_checking_whether_a_lock_is_held_neither_creates_nor_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not files.is_locked(path)
    assert not path.exists()
    with files.lock(path):
        assert files.is_locked(path)
    assert not files.is_locked(path)
    assert not files.is_locked(path)


def test_a_lock_ends_when_the_process_that_holds_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from pipeline.core import files\n"
        "with files.lock(Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    with python(code, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert files.is_locked(path)
        with pytest.raises(files.Busy), files.lock(path):
            pass
        holder.kill()
        holder.wait()
    with files.lock(path):
        assert files.is_locked(path)


def test_a_process_that_waits_gets_the_lock_when_its_holder_is_done(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys; from pathlib import Path; from pipeline.core import files\n"
        "with files.lock(Path(sys.argv[1]), patience=60):\n"
        "    print('held', flush=True)"
    )
    with files.lock(path):
        waiter = python(code, path)
        time.sleep(0.2)
    with waiter:
        assert waiter.communicate()[0] == "held\n"
        assert waiter.returncode == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\xfe{}", "is not UTF-8 text"),
        (b"[1, 2]", "holds no JSON value of the right kind"),
        (b"null", "holds no JSON value of the right kind"),
        (b"{}", "lacks 'fingerprint'"),
        (b"[" * 100_000, "nested too deeply"),
        (b"", "is not valid JSON"),
    ],
)
def test_a_json_file_of_another_shape_is_named_with_the_next_move(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"manifest\.json .*{said}.*; delete it and run the command again"):
        files.read_json(path, dict, keys=("fingerprint",))


def test_what_a_reader_raises_at_a_file_of_another_shape_names_the_file(tmp_path: Path) -> None:
    def missing() -> object:
        return {}["key"]

    def text() -> object:
        return b"\xff".decode()

    def cell() -> object:
        return next(csv.reader(["x" * 200_000]))

    for read, said in (
        (missing, "it has no 'key'"),
        (text, "not UTF-8"),
        (cell, "field larger than"),
        (lambda: [][0], "index out of range"),
    ):  # type: ignore[index]
        with pytest.raises(ValueError, match=rf"^a\.json .*{said}.*; restore it"), files.reading(Path("a.json")):
            read()


def test_rows_that_are_no_objects_or_no_text_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": 1}\n[2]\n\xff\xfe\n{"a": "\xc3\xa6"}\n')
    assert files.read_jsonl(tmp_path / "rows.jsonl") == [{"a": 1}, {"a": "æ"}]


def full_disk(error: int, after: int) -> Callable[..., int]:
    """An `os.fsync` that fails from its call number `after` on."""
    calls = itertools.count()

    def fsync(handle: int) -> None:
        if next(calls) >= after:
            raise OSError(error, os.strerror(error))

    return fsync  # type: ignore[return-value]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.ESTALE])
def test_a_disk_that_fails_in_a_write_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    monkeypatch.setattr(os, "fsync", full_disk(error, 0))
    with pytest.raises(OSError) as caught:
        files.write_json(tmp_path / "value.json", {})
    assert caught.value.filename == str(tmp_path / "value.json")
    assert str(tmp_path / "value.json") in disks.error_text(caught.value)
    with pytest.raises(OSError) as caught, files.publish_folder(tmp_path / "folder"):
        pass
    assert caught.value.filename == str(tmp_path / "folder")
    assert os.listdir(tmp_path) == []


def test_csv_cells_are_no_formulas_and_numbers_stay_numbers() -> None:
    rows = [
        ["=1+1", "+49 30", "@x", "-a", "\t=1", "\r=1"],
        ["-0.5", "+1e-3", -2, 0.25, "a-b", None],
        ["a\nb", "\x1b", "–"],
    ]
    assert list(csv.reader(io.StringIO(files.csv_text(rows)))) == [
        ["'=1+1", "'+49 30", "'@x", "'-a", "'\\t=1", "'\\r=1"],
        ["-0.5", "+1e-3", "-2", "0.25", "a-b", ""],
        ["a\\nb", "\\x1b", "–"],
    ]


@pytest.fixture
def sticky() -> Iterator[Path]:
    """A folder in which every user may write, as /tmp."""
    if os.geteuid() != 0:
        pytest.skip("acting as two users needs root")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        shared = Path(folder) / "scratch"
        shared.mkdir()
        shared.chmod(0o1777)
        yield shared


@pytest.mark.filterwarnings("ignore:This process")
def test_two_users_take_the_same_lock_in_a_shared_folder(sticky: Path) -> None:
    path = sticky / "lock"

    def take() -> None:
        with files.lock(path):
            pass

    assert as_user(12345, take) == ""
    assert path.stat().st_mode & 0o777 == 0o666
    assert as_user(12346, take) == ""
    path.chmod(0o644)  # of an earlier version
    assert as_user(12346, take) == ""
    with files.lock(path):
        assert as_user(12346, take).startswith("Busy: ")


@pytest.mark.filterwarnings("ignore:This process")
def test_a_file_of_another_user_is_used_if_it_can_be_read_else_ones_own_next_to_it(sticky: Path) -> None:
    path = sticky / "toy-32.u8"

    def is_named(name: str) -> Callable[[], None]:
        def check() -> None:
            assert files.own_if_unreadable(path).name == name

        return check

    assert as_user(12345, is_named("toy-32.u8")) == ""
    assert as_user(12345, lambda: files.write_text(path, "x")) == ""  # with a umask of 077
    assert as_user(12345, is_named("toy-32.u8")) == ""
    assert as_user(12346, is_named("toy-32-12346.u8")) == ""
    path.chmod(0o644)
    assert as_user(12346, is_named("toy-32.u8")) == ""
    (sticky / ".toy.1.tmp").touch()
    assert as_user(12346, lambda: files.remove_temporaries(sticky)) == ""
    assert (sticky / ".toy.1.tmp").exists()


def test_locks_in_a_private_folder_stay_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with files.lock(tmp_path / "lock"):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o644


def test_a_thousand_mutated_json_files_are_read_or_named_and_never_anything_else(tmp_path: Path) -> None:
    path, rng = tmp_path / "submission.json", random.Random(2022)
    good = json.dumps({"name": "main.isic", "tasks": [["a", "b"]], "fan_out": True, "code": "æ", "n": [1, 2.5e3, None]})
    read = 0
    for _ in range(1000):
        data = bytearray(good.encode())
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.randint(1, 9)]
            elif kind == 2:
                data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 9)))
            else:
                data[at:at] = rng.choice([b"[" * 5000, b'{"a":', b"NaN", b"1e999", b"\\ud800", b"null", b"9" * 5000])
            data = data or bytearray(b" ")
        path.write_bytes(data)
        try:
            assert isinstance(files.read_json(path, dict, keys=("name", "tasks")), dict)
            read += 1
        except ValueError as error:
            assert str(error).startswith(f"{path} ") and str(error).endswith("delete it and run the command again")
        assert all(isinstance(row, dict) for row in files.read_jsonl(path))
    assert 0 < read < 500


def test_an_only_writer_keeps_others_away_and_deletes_what_killed_ones_left(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    (tmp_path / ".table.csv.123.tmp").write_text("half")
    with files.only_writer(path):
        assert not (tmp_path / ".table.csv.123.tmp").exists()
        with pytest.raises(files.Busy, match="another process is at work on .*table.csv"), files.only_writer(path):
            pass
        files.write_text(path, "whole")
    with files.only_writer(path):
        pass
    assert sorted(each.name for each in tmp_path.iterdir()) == ["table.csv"]
