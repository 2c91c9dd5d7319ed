"""Find images that show the same although their files differ: resized, re-encoded, brightened or mirrored copies.

An image's detail is its grey 32 × 32 thumbnail without the lowest 6 × 6 frequencies of its DCT: what brightness,
contrast and vignettes change little, and what differs between neighbouring slices of one patient. Two images are near
twins if their details correlate at 0.97 or more, as they are or with one of them mirrored. `sketches` finds the pairs
that are compared. (docs/decisions/0020-near-duplicates.md says how the limits were set)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from pipeline.data import sketches
from pipeline.data.sketches import SIDE

ALIKE = 0.97  # the least correlation of two details
MIRRORS = ("as it is", "left to right", "upside down", "by half a turn")


class Pair(NamedTuple):
    """Two near twins, by their positions; `mirror` says how the second must be mirrored to look like the first."""

    first: int
    second: int
    likeness: float
    """The correlation of their details, at most 1."""
    mirror: str


@dataclass(frozen=True, eq=False)
class Pairs(Sequence[Pair]):
    """Pairs of near twins as arrays [k]: many equal images make millions of them."""

    first: np.ndarray
    second: np.ndarray
    likeness: np.ndarray
    mirror: np.ndarray
    """By its number in MIRRORS."""

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Pairs:
        rows = [(*pair[:3], MIRRORS.index(pair.mirror)) for pair in pairs]
        first, second, likeness, mirror = np.array(rows, dtype=np.float64).reshape(-1, 4).T
        return cls(first.astype(np.int64), second.astype(np.int64), likeness, mirror.astype(np.int64))

    def __len__(self) -> int:
        return len(self.first)

    @overload
    def __getitem__(self, number: int) -> Pair: ...

    @overload
    def __getitem__(self, number: slice | np.ndarray) -> Pairs: ...

    def __getitem__(self, number: int | slice | np.ndarray) -> Pair | Pairs:
        one, other, likeness, mirror = (each[number] for each in (self.first, self.second, self.likeness, self.mirror))
        if isinstance(number, int):
            return Pair(int(one), int(other), float(likeness), MIRRORS[mirror])
        return Pairs(one, other, likeness, mirror)

    def __iter__(self) -> Iterator[Pair]:
        return (self[number] for number in range(len(self)))


@dataclass(frozen=True)
class Twins:
    """Which of n images show the same."""

    first_of: np.ndarray
    """For each image the position of the first one with an equal thumbnail, int64 [n]."""
    pairs: Pairs
    """The pairs of near twins among images that are the first of their kind, sorted."""

    def alike(self, least: float, *, mirrored: bool = True) -> Twins:
        """Only the pairs of at least this likeness; without `mirrored`, only those that are alike as they are."""
        pairs = self.pairs
        return Twins(self.first_of, pairs[(pairs.likeness >= least) & (mirrored | (pairs.mirror == 0))])

    def twin_in(self, chosen: np.ndarray) -> np.ndarray:
        """For each image the position of another one that is its twin and chosen (bool [n]), or -1: int64 [n]."""
        count = len(self.first_of)
        where = np.flatnonzero(chosen)
        low, high = np.full(count, -1), np.full(count, -1)  # two chosen images of each kind, if there are two
        high[self.first_of[where]] = where
        low[self.first_of[where[::-1]]] = where[::-1]
        near = np.full(count, -1)
        np.maximum.at(near, self.pairs.first, high[self.pairs.second])
        np.maximum.at(near, self.pairs.second, high[self.pairs.first])
        own = np.where(high[self.first_of] == np.arange(count), low[self.first_of], high[self.first_of])
        out: np.ndarray = np.where((own >= 0) & (own != np.arange(count)), own, near[self.first_of])
        return out

    def groups(self) -> np.ndarray:
        """The lowest position in each image's group, int64 [n]: images are in one group if pairs connect them."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        count = len(self.first_of)
        ends = (self.pairs.first, self.pairs.second)
        graph = coo_array((np.ones(len(self.pairs), bool), ends), shape=(count, count))
        parts = connected_components(graph, directed=False)[1][self.first_of]
        lowest = np.full(count, count)
        np.minimum.at(lowest, parts, np.arange(count))
        return np.asarray(lowest[parts])


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """The grey thumbnail of an image: uint8 [h, w, 3] to uint8 [32, 32]."""
    from pipeline.data import images

    grey = images.resize(np.ascontiguousarray(pixels), SIDE) @ np.array([0.299, 0.587, 0.114])
    out: np.ndarray = np.rint(grey).astype(np.uint8)
    return out


def find_twins(thumbnails: np.ndarray, alike: float = ALIKE) -> Twins:
    """The near twins among thumbnails uint8 [n, 32, 32]; the array may be a memory map.

    Memory: a kilobyte an image and some 30 bytes a pair. Time: grows with n, see decision 20.
    """
    flat = np.ascontiguousarray(thumbnails).reshape(len(thumbnails), SIDE * SIDE)
    distinct, first_of = _distinct(flat)
    found = [Pairs.of([])]
    for i, j, mirror in sketches.candidates(*sketches.sketches(flat, distinct)):
        likeness = sketches.likeness(flat, i, j, mirror)
        near = likeness >= alike
        found.append(Pairs(i[near], j[near], likeness[near].astype(np.float64), mirror[near]))
    pairs = Pairs(
        *(np.concatenate([getattr(each, name) for each in found]) for name in ("first", "second", "likeness", "mirror"))
    )
    return Twins(first_of, pairs[np.lexsort((pairs.likeness, pairs.second, pairs.first))])


def _distinct(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions of the first of equal rows, and for each row the position of its first."""
    digests = b"".join(hashlib.blake2b(row, digest_size=16).digest() for row in flat)
    _, first, inverse = np.unique(np.frombuffer(digests, "V16"), return_index=True, return_inverse=True)
    first_of: np.ndarray = first[inverse.ravel()]
    return np.sort(first), first_of
