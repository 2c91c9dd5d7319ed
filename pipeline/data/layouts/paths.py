"""Find the file that a row of a table names, also where the row spells it as another system or without its ending."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from pipeline.core.console import visible
from pipeline.data.labels import listed


class Files:
    """The files of a raw folder by the ways to name them."""

    def __init__(self, root: Path, images: Iterable[Path], others: Iterable[Path]) -> None:
        self.root = root
        self.images = list(images)
        self.known = {str(path) for path in (*self.images, *others)}
        self.by_name: dict[str, list[Path]] | None = None

    def has(self, text: str) -> bool:
        """Whether a cell is the path of a file as it is written."""
        path = self.root / text
        return "\0" not in text and (str(path) in self.known or os.path.lexists(path))

    def find(self, text: str, encoding: str, *, anywhere: bool) -> tuple[Path, str | None]:
        """The path of the file that a cell names, and why there is none, where more can be said than that.

        The path as it is written comes first; then with `/` for Windows' backslashes, in the encoding of the table
        (names that are no UTF-8), in another Unicode form and without its ending, and with `anywhere` in any folder.
        What fits several files fits none.
        """
        if "\0" in text:
            return self.root / text, "its path holds a NUL byte"
        spellings = dict.fromkeys((text, text.replace("\\", "/"), _as_bytes(text, encoding)))
        for spelling in spellings:
            if self.has(spelling):
                return self.root / spelling, None
        similar: list[Path] = []
        for spelling in spellings:
            name = _normal(spelling)
            elsewhere = self._index().get(f"*/{name}", []) if "/" not in name else []
            found = self._index().get(name, []) or (elsewhere if anywhere else [])
            if len(found) == 1:
                return found[0], None
            if found:
                return self.root / text, f"names {len(found)} files: {self._names(found)}; write their folder too"
            similar = similar or elsewhere or self._index().get(name.casefold() + "?", [])
        return self.root / text, f"no such file; there is {self._names(similar)}" if similar else None

    def _names(self, paths: list[Path]) -> str:
        return listed(visible(path.relative_to(self.root).as_posix()) for path in paths)

    def _index(self) -> dict[str, list[Path]]:
        """All images by their paths and by `*/` and their names, with and without ending, in Unicode's form NFC.

        A path in lower case with `?` behind finds files that differ in case alone.
        """
        if self.by_name is None:
            self.by_name = {}
            for path in self.images:
                name = _normal(path.relative_to(self.root).as_posix())
                bare, base = posixpath.splitext(name)[0], name.rpartition("/")[2]
                keys = (name, bare, f"*/{base}", f"*/{posixpath.splitext(base)[0]}", f"{name.casefold()}?")
                for key in dict.fromkeys(keys):
                    self.by_name.setdefault(key, []).append(path)
        return self.by_name


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", posixpath.normpath(name))


def _as_bytes(text: str, encoding: str) -> str:
    """How Python names a file whose name has the bytes that the table has."""
    try:
        return os.fsdecode(text.encode(encoding.removesuffix("-sig")))
    except (UnicodeError, LookupError):
        return text
