"""Read the CSV files of raw folders: encoding and delimiter are seen where the file itself tells, and never guessed."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.console import visible
from pipeline.data.labels import clean, listed

DELIMITERS = (",", ";", "\t")
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Byte-order marks, as spreadsheets write them, and the encodings that they tell."""

Row = tuple[int, dict[str, str]]
"""The number of its line, and its cells by column."""


@dataclass(frozen=True)
class Table:
    """A CSV file. Its cells have no blanks around them; rows without any cell are left out."""

    path: Path
    encoding: str
    header: list[str]
    """The names of the columns; columns without a name (pandas' index) are left out."""
    rows: list[Row]
    nameless: int
    """How many columns have no name."""


def read_table(path: Path, *, is_header: Callable[[Sequence[str]], bool], encoding: str | None = None) -> Table:
    """Read a CSV file; the delimiter is the one that makes of its first line what `is_header` accepts.

    Where none does, there are no rows and the header is the first line cut by one of them. Raises
    `ValueError` for a file that cannot be read or decoded, for two columns with one name and for a row that has
    more or fewer cells than the header.
    """
    text, encoding = _decode(path, encoding)
    told = re.match(r"sep=(.)\r?\n", text)  # Excel's own first line
    delimiters = (told[1],) if told else DELIMITERS
    text = text[told.end() :] if told else text
    first = {delimiter: _cells(path, _first_line(text), delimiter) for delimiter in delimiters}
    accepted = [delimiter for delimiter, header in first.items() if is_header(header)]
    if not accepted:
        return Table(path, encoding, max(first.values(), key=len), [], 0)
    header, rows = _rows(path, text, accepted[0], skipped=1 if told else 0)
    named = [name for name in header if not _is_nameless(name)]
    if twice := [name for name, count in Counter(map(clean, named)).items() if count > 1]:
        raise ValueError(f"{path} has several columns called {listed(map(repr, twice))}; rename or remove all but one")
    return Table(path, encoding, named, rows, len(header) - len(named))


def _rows(path: Path, text: str, delimiter: str, *, skipped: int) -> tuple[list[str], list[Row]]:
    """The header and the rows; `skipped` lines of the file are before `text`."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header: list[str] = []
    rows: list[Row] = []
    try:
        for cells in lines:
            number = lines.line_num + skipped
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
            elif len(cells) != len(header):
                raise ValueError(
                    f"{path}, line {number}: it has more or fewer cells than the header "
                    f"({len(cells)}, not {len(header)}); fix the line"
                )
            else:
                rows.append((number, dict(zip(header, (cell.strip() for cell in cells), strict=True))))
    except csv.Error as error:
        raise ValueError(f"{path}, line {lines.line_num + skipped}: {error}; fix the line") from error
    return header, rows


def _is_nameless(name: str) -> bool:
    return name == "" or re.fullmatch(r"Unnamed: \d+", name) is not None


def _first_line(text: str) -> str:
    return next((line.rstrip("\r\n") for line in io.StringIO(text, newline="") if line.strip(" ,;\t\r\n")), "")


def _cells(path: Path, line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error as error:
        raise ValueError(f"{path}, line 1: {error}; fix the line") from error


def _decode(path: Path, encoding: str | None) -> tuple[str, str]:
    """The text of a file and its encoding: as given, by its byte-order mark, or UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if data.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path} is a spreadsheet, not a CSV file; save it as CSV (UTF-8)")
    marked = next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    chosen = encoding or marked or "utf-8"
    if chosen == "utf-8" and b"\0" in data.partition(b"\n")[0]:
        raise ValueError(f"{path} has NUL bytes in its header; save it as UTF-8, or give --encoding utf-16-le")
    try:
        text = data.decode(chosen)
    except LookupError as error:
        raise ValueError(
            f"there is no encoding {chosen!r}; known are utf-8, cp1252, latin-1, utf-16 and more"
        ) from error
    except UnicodeError as error:
        if not isinstance(error, UnicodeDecodeError):
            raise ValueError(f"{path} is not {chosen} ({error}); save it as UTF-8") from error
        line = data.count(b"\n", 0, error.start) + 1
        near = data[max(0, error.start - 10) : error.start + 10].decode("ascii", "backslashreplace")
        move = "or with --layout csv say what it is: --encoding cp1252 (Windows, Western Europe)"
        raise ValueError(
            f"{path} is not {'UTF-8' if chosen == 'utf-8' else chosen} (byte 0x{data[error.start]:02x} in line {line}: "
            f"{visible(near)}); save it as UTF-8, {'or correct --encoding' if encoding else move}"
        ) from error
    return text.removeprefix("\ufeff"), chosen
