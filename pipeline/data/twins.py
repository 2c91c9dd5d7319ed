"""Find images that show the same although their files differ: resized, re-encoded, brightened or mirrored copies.

An image's detail is its grey 32 × 32 thumbnail without the lowest 6 × 6 frequencies of its DCT: what brightness,
contrast and vignettes change little, and what differs between neighbouring slices of one patient. Two images are near
twins if their details correlate at 0.97 or more, as they are or with one of them mirrored. Candidates are found by sign
bits of random projections (Charikar 2002), so that the time grows with the number of images and not with its square.
(docs/decisions/0020-near-duplicates.md says how the limits were set)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.core.seeds import derive

SIDE = 32  # of a thumbnail, in pixels
LOW = 6  # frequencies along each side that are left out
ALIKE = 0.97  # the least correlation of two details
FAINT = 16.0  # a detail of a smaller norm (half a grey level a pixel) is noise: such an image has no near twins
BANDS, BAND_BITS = 48, 20  # a pair at ALIKE agrees in none of the bands once in 40,000 times
MOST_BITS = 120  # of all bits that may differ; a pair at ALIKE differs in 75 ± 8
WINDOW = 1024  # in a bucket an image is compared with that many others, so that many equal images cost no square
BLOCK = 1 << 16  # pairs or images at once
MIRRORS = ("as it is", "left to right", "upside down", "by half a turn")


class Pair(NamedTuple):
    """Two near twins, by their positions; `mirror` says how the second must be mirrored to look like the first."""

    first: int
    second: int
    likeness: float
    """The correlation of their details, at most 1."""
    mirror: str


@dataclass(frozen=True)
class Twins:
    """Which of n images show the same."""

    first_of: np.ndarray
    """For each image the position of the first one with an equal thumbnail, int64 [n]."""
    pairs: list[Pair]
    """The pairs of near twins among images that are the first of their kind, sorted."""

    def alike(self, least: float, *, mirrored: bool = True) -> Twins:
        """Only the pairs of at least this likeness; without `mirrored`, only those that are alike as they are."""
        kept = [p for p in self.pairs if p.likeness >= least and (mirrored or p.mirror == MIRRORS[0])]
        return Twins(self.first_of, kept)

    def twin_in(self, chosen: np.ndarray) -> np.ndarray:
        """For each image the position of another one that is its twin and chosen (bool [n]), or -1: int64 [n]."""
        count = len(self.first_of)
        where = np.flatnonzero(chosen)
        low, high = np.full(count, -1), np.full(count, -1)  # two chosen images of each kind, if there are two
        high[self.first_of[where]] = where
        low[self.first_of[where[::-1]]] = where[::-1]
        near = np.full(count, -1)
        for one, other in [pair[:2] for pair in self.pairs]:
            near[one], near[other] = max(near[one], high[other]), max(near[other], high[one])
        own = np.where(high[self.first_of] == np.arange(count), low[self.first_of], high[self.first_of])
        out: np.ndarray = np.where((own >= 0) & (own != np.arange(count)), own, near[self.first_of])
        return out

    def groups(self) -> np.ndarray:
        """The lowest position in each image's group, int64 [n]: images are in one group if pairs connect them."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        count = len(self.first_of)
        i, j = np.array([pair[:2] for pair in self.pairs], dtype=np.int64).reshape(-1, 2).T
        graph = coo_array((np.ones(len(i), bool), (i, j)), shape=(count, count))
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

    Memory: half a kilobyte an image. Time: grows with n, see decision 20.
    """
    flat = np.ascontiguousarray(thumbnails).reshape(len(thumbnails), SIDE * SIDE)
    distinct, first_of = _distinct(flat)
    positions, codes = _codes(flat, distinct)
    pairs = []
    for i, j, mirror in _candidates(positions, codes):
        likeness = (_details(flat[i]) * _details(flat[j]) * SIGNS[mirror]).sum(axis=1)
        near = np.flatnonzero(likeness >= alike)
        pairs += [Pair(int(i[k]), int(j[k]), float(likeness[k]), MIRRORS[mirror[k]]) for k in near]
    return Twins(first_of, sorted(pairs))


def _distinct(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions of the first of equal rows, and for each row the position of its first."""
    rows = flat.view(np.dtype((np.void, flat.shape[1]))).ravel()
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    first_of: np.ndarray = first[inverse.ravel()]
    return np.sort(first), first_of


def _basis() -> np.ndarray:
    """The orthonormal DCT-II of SIDE values [SIDE frequencies, SIDE pixels]."""
    k, x = np.arange(SIDE)[:, None], np.arange(SIDE)[None]
    basis = np.cos(np.pi * k * (2 * x + 1) / (2 * SIDE)) * np.sqrt(2 / SIDE)
    basis[0] /= np.sqrt(2)
    out: np.ndarray = basis.astype(np.float32)
    return out


def _kept() -> tuple[np.ndarray, np.ndarray]:
    """The kept frequencies (vertical, horizontal) of a detail, each [d]."""
    keep = np.ones((SIDE, SIDE), bool)
    keep[:LOW, :LOW] = False
    vertical, horizontal = np.nonzero(keep)
    return vertical, horizontal


BASIS = _basis()
V, H = _kept()
EVEN_V, EVEN_H = 1 - 2 * (V % 2), 1 - 2 * (H % 2)
SIGNS = np.stack([np.ones_like(V), EVEN_H, EVEN_V, EVEN_V * EVEN_H]).astype(np.float32)
"""What mirroring does to a detail, for each of MIRRORS [4, d]: the odd frequencies along its axis change their sign."""


def _details(rows: np.ndarray) -> np.ndarray:
    """The details of flat thumbnails uint8 [n, 1024], of norm one, or zero where they are faint: float32 [n, d]."""
    grey = rows.reshape(-1, SIDE, SIDE).astype(np.float32)
    details = (BASIS @ grey @ BASIS.T)[:, V, H]
    norm = np.linalg.norm(details, axis=1, keepdims=True)
    return np.where(norm >= FAINT, details / np.maximum(norm, FAINT), 0).astype(np.float32)


def _codes(flat: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions whose details are not faint, and the sign bits of each of their mirrorings: uint64 [4, n, 15]."""
    rng = np.random.default_rng(derive("near twins"))
    planes = rng.standard_normal((len(V), BANDS * BAND_BITS)).astype(np.float32)
    strong, codes = [], []
    for start in range(0, len(positions), BLOCK // 8):
        at = positions[start : start + BLOCK // 8]
        details = _details(flat[at])
        kept = details.any(axis=1)
        strong.append(at[kept])
        bits = [np.packbits(details[kept] * signs @ planes > 0, axis=1).view(np.uint64) for signs in SIGNS]
        codes.append(np.stack(bits))
    none = np.empty((4, 0, BANDS * BAND_BITS // 64), np.uint64)
    return np.concatenate([positions[:0], *strong]), np.concatenate([none, *codes], axis=1)


def _candidates(positions: np.ndarray, codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of pairs whose codes are close: two positions, the first the lower, and the mirroring of the second."""
    found = [np.empty(0, np.int64)]
    n = len(positions)
    flat = codes.reshape(4 * n, codes.shape[-1])
    shuffled = np.random.default_rng(derive("near twins", "order")).permutation(4 * n)
    for band in range(BANDS):
        keys = _keys(flat, band)
        order = shuffled[np.argsort(keys[shuffled], kind="stable")]
        keys = keys[order]
        at = np.arange(len(order))
        for shift in range(1, WINDOW):
            at = at[at + shift < len(order)]
            at = at[keys[at] == keys[at + shift]]
            if not len(at):
                break
            found.append(_close(order[at], order[at + shift], flat, n))
        found = [np.unique(np.concatenate(found))]
    pairs = found[0]
    for start in range(0, len(pairs), BLOCK // 8):
        ij, mirror = np.divmod(pairs[start : start + BLOCK // 8], 4)
        i, j = np.divmod(ij, max(1, n))
        yield positions[i], positions[j], mirror


def _keys(codes: np.ndarray, band: int) -> np.ndarray:
    """The bits of a band as numbers: uint32 [n]."""
    byte, rest = divmod(band * BAND_BITS, 8)
    three = codes.view(np.uint8)[:, byte : byte + 3].astype(np.uint32)
    return ((three[:, 0] << 16 | three[:, 1] << 8 | three[:, 2]) >> (4 - rest)) & ((1 << BAND_BITS) - 1)


def _close(a: np.ndarray, b: np.ndarray, codes: np.ndarray, n: int) -> np.ndarray:
    """The pairs of code numbers that are close, each as one number; at least one of a pair is an image as it is."""
    as_it_is = np.minimum(a, b) < n  # the mirrorings of one pair come up to four times
    a, b = np.minimum(a, b)[as_it_is], np.maximum(a, b)[as_it_is]
    out = []
    for start in range(0, len(a), BLOCK):
        i, j = a[start : start + BLOCK], b[start : start + BLOCK]
        near = np.bitwise_count(codes[i] ^ codes[j]).sum(axis=1, dtype=np.int64) <= MOST_BITS
        mirror, j = np.divmod(j[near], n)
        i = i[near]
        low, high = np.minimum(i, j), np.maximum(i, j)  # a mirroring undoes itself, so the two may change places
        out.append(((low * n + high) * 4 + mirror)[low != high])
    return np.concatenate([np.empty(0, np.int64), *out])
