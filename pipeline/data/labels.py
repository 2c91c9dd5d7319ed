"""Names as people write them, cleaned: one class written in two Unicode forms, or as `1` and `1.0`, is one class.

A name that is written one way everywhere stays as it is. What could be two classes or one is never guessed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.core.console import visible

# What pandas reads as a missing value (pandas.read_csv, na_values); the empty cell is one everywhere.
MISSING = frozenset(
    "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null".split("|")
)
TOGETHER, APART = "together", "apart"
INVISIBLE = re.compile("^[\\s\u200b\u2060\ufeff]+|[\\s\u200b\u2060\ufeff]+$")  # blanks and joiners of no width
LONGEST = 80  # characters of a name in a message
NAMED = 5  # names that a message lists; it counts the others


@dataclass(frozen=True)
class Names:
    """How names are to be read."""

    of: Mapping[str, str]
    """The cleaned name of each spelling."""
    notes: tuple[str, ...]
    """What was joined, in sentences."""


def clean(text: str) -> str:
    """A name without blanks around it, in Unicode's form NFC, with bytes that are no UTF-8 written out."""
    return INVISIBLE.sub("", unicodedata.normalize("NFC", storable(text)))


def unify(counts: Mapping[str, int], similar: str | None, *, what: str = "classes") -> Names:
    """Read spellings, each with its number of images, as names of `what`.

    Spellings that mean the same beyond doubt get one name: other Unicode forms, blanks around the name, `1` and `1.0`.
    Names that differ in case or blanks alone could be one: they are joined if `similar` is TOGETHER and stay if it is
    APART; else a `ValueError` names them with their counts and the flag that decides.
    """
    by_name: dict[str, list[str]] = {}
    for spelling in counts:
        by_name.setdefault(_plain_number(clean(spelling)), []).append(spelling)
    of: dict[str, str] = {}
    notes = []
    for name, spellings in by_name.items():
        one = name if len(spellings) > 1 else storable(spellings[0])
        of.update(dict.fromkeys(spellings, one))
        if len(spellings) > 1:
            notes.append(f"{listed(_written(spelling) for spelling in sorted(spellings))} are one: {visible(one)}")
    totals: dict[str, int] = {}
    for spelling, name in of.items():
        totals[name] = totals.get(name, 0) + counts[spelling]
    joined = {} if similar == APART else _join_similar(totals, similar, what)
    notes += [f"{visible(name)!r} is read as {joined[name]!r} (--similar-classes together)" for name in sorted(joined)]
    return Names({spelling: joined.get(name, name) for spelling, name in of.items()}, tuple(notes))


def storable(text: str) -> str:
    """`text` as it is, but bytes that are no UTF-8 are written out: no file of ours can hold them."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def fold(name: str) -> str:
    """What is left of a name without case, blanks, underscores, invisible characters and Unicode's variants."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    plain = "".join(c for c in plain if not c.isspace() and c != "_" and unicodedata.category(c) not in ("Cf", "Cc"))
    return plain.lstrip("0") or "0" if plain.isdecimal() else plain


def listed(names: Iterable[str]) -> str:
    """The first few names, long ones cut, and how many more there are: `a, b, c, d, e and 2 more`."""
    every = list(names)
    first = ", ".join(name if len(name) <= LONGEST else f"{name[:LONGEST]}…" for name in every[:NAMED])
    return first + (f" and {len(every) - NAMED:,} more" if len(every) > NAMED else "")


def _join_similar(totals: Mapping[str, int], similar: str | None, what: str) -> dict[str, str]:
    """For names that could be others of `totals`, the name that most images have."""
    groups: dict[str, list[str]] = {}
    for name in totals:
        groups.setdefault(fold(name), []).append(name)
    alike = [sorted(names, key=lambda name: (-totals[name], name)) for names in groups.values() if len(names) > 1]
    if alike and similar is None:
        pairs = listed(" and ".join(f"{visible(name)!r} ({totals[name]:,})" for name in names) for names in alike)
        raise ValueError(
            f"{what} that could be one, with their numbers of images: {pairs}; write each one way, or decide with "
            f"--similar-classes {TOGETHER} (one class) or --similar-classes {APART} (as they are)"
        )
    return {name: names[0] for names in alike for name in names[1:]}


def _plain_number(name: str) -> str:
    """`1.0` and `1.00` as `1`, `1.50` as `1.5`; all else as it is."""
    if re.fullmatch(r"[+-]?\d+\.\d+", name, re.ASCII):
        return name.rstrip("0").rstrip(".")
    return name


def _written(spelling: str) -> str:
    """A spelling for a message, with what distinguishes it from another one that looks alike."""
    escaped = spelling.encode("ascii", "backslashreplace").decode()
    return repr(visible(spelling)) if unicodedata.is_normalized("NFC", spelling) else f"'{escaped}'"
