"""The terminal shows aligned tables, short durations, and one line instead of a traceback for a user's error."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core import console


def test_tables_align_names_left_and_numbers_right() -> None:
    shown = console.table([["MEL", 197, "9.5%"], ["NV", 1730, "–"]], header=("class", "train", "share"))
    assert shown.splitlines() == [
        "class  train  share",
        "-----  -----  -----",
        "MEL      197   9.5%",
        "NV      1730      –",
    ]


def test_a_number_and_what_it_counts_agree() -> None:
    assert [console.counted(number, "tar") for number in (0, 1, 2000)] == ["0 tars", "1 tar", "2,000 tars"]
    assert [console.counted(n, "run is", "runs are") for n in (1, 2)] == ["1 run is", "2 runs are"]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("vit_base_patch16 91.5 %", "vit_base_patch16 91.5 %"),
        ("_a_ *b* `c` ~d~ a__b", "\\_a\\_ \\*b\\* \\`c\\` \\~d\\~ a\\_\\_b"),
        ("[x](http://y)", "\\[x\\](http://y)"),
        ("![x](y)", "!\\[x\\](y)"),
        ("<script>&lt;", "&lt;script>&amp;lt;"),
        ("a|b\\|c", "a\\|b\\\\\\|c"),
        ("two\nlines\x1b[2J", "two\\\\nlines\\\\x1b\\[2J"),
    ],
)
def test_text_in_markdown_is_no_markup(text: str, escaped: str) -> None:
    assert console.markdown(text) == escaped


def test_a_table_without_rows_is_its_header_or_nothing() -> None:
    assert console.table([]) == ""
    assert console.table([], header=("file", "reason")).splitlines() == ["file  reason", "----  ------"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "0 s"),
        (42, "42 s"),
        (99, "99 s"),
        (150, "2 min"),
        (5880, "98 min"),
        (6000, "1 h 40 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_have_at_most_two_units(seconds: float, shown: str) -> None:
    assert console.duration(seconds) == shown


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code", "said"),
    [
        (lambda: 0, 0, ""),
        (lambda: 1, 1, ""),
        (raising(ValueError("--size is 4; give more")), 2, "error: --size is 4; give more\n"),
        (
            raising(MemoryError()),
            2,
            "error: there is too little memory; use fewer workers, or a machine with more\n",
        ),
        (raising(KeyboardInterrupt()), 130, "stopped; run the same command again to continue\n"),
    ],
)
def test_a_command_ends_with_an_exit_code_and_prints_at_most_one_line(
    main: Callable[[], int], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        console.run_command(main)
    assert caught.value.code == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/shards/a.tar"),
            r"/data/shards/a\.tar: the disk is full",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "where this command's output goes: the disk is full"),
        (
            OSError(errno.EROFS, "Read-only file system", b"/ro/\xff"),
            r"/ro/\\xff: the disk is read-only; give a folder",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "runs/a\nb"), r"runs/a\\nb: you may not read or write it"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.csv"), r"x\.csv: it is not there"),
        (OSError(errno.ENOTSUP, "Operation not supported", "x"), "x: Operation not supported; fix that"),
        (OSError("not a known kind"), "not a known kind; fix that"),
    ],
)
def test_what_a_disk_says_is_one_line_with_the_path_and_the_next_move(
    error: OSError, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        console.run_command(raising(error))
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert re.search(said, err) and "run the same command again" in err


def key_error() -> int:
    return {"a": 1}["b\x1b[2J"]


@pytest.mark.parametrize(
    "main",
    [raising(AssertionError()), key_error, raising(json.JSONDecodeError("no value", "", 0)), raising(OverflowError())],
)
def test_a_fault_of_the_program_is_one_line_that_names_the_file_with_the_traceback(
    main: Callable[[], int], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        console.run_command(main)
    assert caught.value.code == 70
    err = capsys.readouterr().err
    (written,) = tmp_path.iterdir()
    assert err.startswith("fault of the program, not of your input: ") and err.count("\n") == 1
    assert str(written) in err and "send it" in err and "\x1b" not in err
    assert "Traceback (most recent call last)" in written.read_text()


def test_a_fault_is_shown_whole_where_no_file_can_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(SystemExit) as caught:
        console.run_command(key_error)
    assert caught.value.code == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_text_from_names_cannot_drive_a_terminal_or_break_a_table() -> None:
    name = os.fsdecode(b"a\nb\x1b[31m\xff") + "\u202egnp.exe nævus 皮膚"
    shown = "a\\nb\\x1b[31m\\xff\\u202egnp.exe nævus 皮膚"
    assert console.visible(name) == shown
    assert console.table([[name, 1]]) == f"{shown}  1"
    assert console.visible_lines("two\nlines\r") == "two\nlines\\r"
    for code in (*range(0x20), *range(0x7F, 0xA0)):
        assert console.visible(chr(code)).isprintable() and console.visible(chr(code)) != chr(code)


def test_progress_yields_every_item_and_prints_nothing_for_a_short_job_in_a_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(console.progress(iter("abc"), total=3, what="reading")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nævus 病人 a\\b", "nævus 病人 a\\b"),
        ("two\nlines\r\t", r"two\nlines\r\t"),
        ("\x1b[31m\x9b\x7f", r"\x1b[31m\x9b\x7f"),
        ("caf\udce9", r"caf\xe9"),
        ("\u202egnp.exe\u200b\u2028", r"\u202egnp.exe\u200b\u2028"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_text_from_files_can_neither_break_a_line_nor_drive_a_terminal(text: str, shown: str) -> None:
    assert console.visible(text) == shown
    assert console.visible(shown) == shown
    assert shown in console.table([[text, 1]])
    shown.encode()


def test_an_error_shows_its_lines_and_escapes_what_is_in_them(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise ValueError("2 images are bad:\n  red\x1b[31m.jpg\n  caf\udce9.jpg")

    with pytest.raises(SystemExit):
        console.run_command(main)
    assert capsys.readouterr().err == "error: 2 images are bad:\n  red\\x1b[31m.jpg\n  caf\\xe9.jpg\n"


def test_a_terminal_that_lacks_a_character_shows_it_escaped() -> None:
    code = "from pipeline.core.console import run_command\nrun_command(lambda: print('3 × caf\\udce9') or 0)\n"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "3 \\xd7 caf\\udce9\n"), done.stderr
