"""Output on the terminal: progress, aligned tables, durations, and errors as one line with an exit code."""

from __future__ import annotations

import io
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NoReturn, TextIO, TypeVar

from pipeline.core import disks

T = TypeVar("T")
FAULT = 70  # exit code of a fault of the program (EX_SOFTWARE)


def run_command(main: Callable[[], int]) -> NoReturn:
    """Run a command and exit: with its return value, or with one line and an exit code for an error.

    2: an error that a person can cause (a `ValueError` or what a disk says). 130: Ctrl-C. 70: a fault of the program;
    the line names the file with the traceback. A closed pipe (`| head`) is no error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal of another encoding
    stdout = sys.stdout
    try:
        code = main()
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        print("stopped; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
    except ValueError as error:
        import json  # with those of `_fault`: --help does not wait for them

        if isinstance(error, (UnicodeError, json.JSONDecodeError)):  # of a reader that names no file
            sys.exit(_fault(error))
        print(f"error: {visible_lines(str(error))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {visible(disks.error_text(error))}", file=sys.stderr)
        sys.exit(2)
    except MemoryError:
        print("error: there is too little memory; use fewer workers, or a machine with more", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        sys.exit(_fault(error))
    finally:
        sys.stdout = stdout
        voice.as_json = voice.quiet = False


class _Nowhere(io.TextIOBase):
    """A stream for what nobody wants to read."""

    def write(self, text: str) -> int:
        return len(text)


class _Voice:
    """How the command of this process speaks."""

    as_json = False
    quiet = False
    stdout: TextIO


voice = _Voice()


def speak(*, as_json: bool, quiet: bool) -> None:
    """From here on print no text: with `as_json` only `answer`, with `quiet` no progress either. Errors are printed."""
    voice.as_json, voice.quiet, voice.stdout = as_json, quiet, sys.stdout
    if as_json or quiet:
        sys.stdout = _Nowhere()


def answer(value: Mapping[str, object]) -> None:
    """With `--json`: print what the command found as one JSON object. Else nothing: its text says the same."""
    if voice.as_json:
        import json

        print(json.dumps(_finite(value), indent=2, default=str, allow_nan=False), file=voice.stdout, flush=True)


def _finite(value: object) -> object:
    """The value with None in place of numbers that JSON has no word for."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def hand_over(text: str) -> None:
    """Print what was asked for as text, also with `--quiet`."""
    if not voice.as_json:
        print(text, end="", file=voice.stdout, flush=True)


def complain(text: str) -> None:
    """Print what is wrong with what was asked about: with `--quiet` too, then on standard error.

    With `--json` the object says it.
    """
    if voice.quiet and not voice.as_json:
        print(text, file=sys.stderr, flush=True)
    else:
        print(text, flush=True)


def _fault(error: Exception) -> int:
    """Say that an error is a fault of the program, with its traceback in a file; returns the exit code."""
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    last = visible(text.strip().splitlines()[-1])
    try:
        handle, name = tempfile.mkstemp(prefix="cass-pipeline-", suffix="-traceback.txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{sys.argv}\n{text}")
    except OSError:  # no room for a file
        print(visible_lines(str(text)), file=sys.stderr)
        name = "the lines above"
    print(
        f"fault of the program, not of your input: {last}; the traceback is in {name}: check it for names that are "
        "private and send it to the maintainers (an issue of the project)",
        file=sys.stderr,
    )
    return FAULT


def progress(items: Iterable[T], *, total: int, what: str) -> Iterator[T]:
    """Yield `items` and show how many are done: a bar on a terminal, a plain line every 30 seconds elsewhere."""
    if voice.quiet:
        yield from items
        return
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=what, unit="", dynamic_ncols=True)
        return
    started = printed = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if (now := time.monotonic()) - printed > 30:
            printed = now
            rate = done / (now - started)
            left = duration(max(total - done, 0) / rate)
            print(f"{what}: {done} of {total}, {rate:.1f} a second, {left} left", file=sys.stderr, flush=True)


def silent(items: Iterable[T], *, total: int, what: str) -> Iterator[T]:
    """Yield `items` as `progress` does, and show nothing."""
    yield from items


def visible(text: str) -> str:
    """`text` in one line without invisible or controlling characters: those are shown as `\\n`, `\\x1b`, `\\u202e`.

    A byte of a file name that is no UTF-8 is shown as `\\xe9`. What is escaped once stays the same.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def markdown(text: str) -> str:
    """`text` in one line of Markdown, of a paragraph or a table's cell, where no character is markup.

    HTML, which Markdown may hold, is escaped too. An underscore inside a word is none of Markdown's signs.
    """
    plain = visible(text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"[\\`*\[\]~|]|(?<![^\W_])_|_(?![^\W_])", lambda sign: f"\\{sign[0]}", plain)


def visible_lines(text: str) -> str:
    """`text` with its lines, each as `visible` shows it."""
    return "\n".join(map(visible, text.split("\n")))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def table(rows: Sequence[Sequence[object]], *, header: Sequence[str] = ()) -> str:
    """Rows as aligned text, one line each (see `visible`); columns that hold only numbers are aligned right."""
    texts = [[visible(str(cell)) for cell in row] for row in rows]
    lines = ([[visible(name) for name in header]] if header else []) + texts
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    right = [bool(texts) and all(_is_number(row[column]) for row in texts) for column in range(len(widths))]

    def aligned(line: list[str]) -> str:
        cells = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        return "  ".join(cells).rstrip()

    out = [aligned(line) for line in lines]
    if header:
        out.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(out)


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "", 1).rstrip("%").isdigit() or text in ("", "–")


def counted(number: int, one: str, several: str = "") -> str:
    """A number with what it counts: `1 image`, `1,234 images`; `several` where more than an s is to change."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def duration(seconds: float) -> str:
    """Seconds as text with at most two units: `42 s`, `7 min`, `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
