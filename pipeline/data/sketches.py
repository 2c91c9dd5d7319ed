"""Pairs of thumbnails whose details may be alike: sketches of sign bits, compared where they fall into one bucket.

The sketch of a detail is the sign bits of random projections (Charikar 2002). Sketches that agree in all bits of a band
are in one bucket; the pairs of a bucket are candidates where their sketches are close. The time grows with the number
of images, not with its square: an image is compared with at most WINDOW others of a bucket.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.core.seeds import derive

SIDE = 32  # of a thumbnail, in pixels
LOW = 6  # frequencies along each side that are left out
FAINT = 16.0  # a detail of a smaller norm (half a grey level a pixel) is noise: such an image has no near twins
BANDS, BAND_BITS = 48, 20  # a pair that correlates at 0.97 agrees in none of the bands once in 40,000 times
WORDS = BANDS * BAND_BITS // 64  # of 64 bits, of a sketch
HEAD_BANDS, HEAD = 16, 5  # bands and words that are compared first
MOST_BITS = 120  # of all bits that may differ; a pair that correlates at 0.97 differs in 75 ± 8
WINDOW = 1024  # in a bucket an image is compared with that many others, so that many equal images cost no square
BLOCK = 1 << 11  # images or pairs at once
CLOSE_BLOCK = 1 << 16  # pairs of sketches at once
ROOM = 1 << 22  # candidates that wait until those found more than once are dropped


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
"""What mirroring does to a detail [4, d], as it is, left to right, upside down, both: the odd frequencies along an axis
change their sign."""
PARITIES = [np.flatnonzero((V % 2 == v) & (H % 2 == h)) for v in (0, 1) for h in (0, 1)]


def details(rows: np.ndarray) -> np.ndarray:
    """The details of flat thumbnails uint8 [n, 1024], of norm one, or zero where they are faint: float32 [n, d]."""
    grey = rows.reshape(-1, SIDE, SIDE).astype(np.float32)
    found = (BASIS @ grey @ BASIS.T)[:, V, H]
    norm = np.linalg.norm(found, axis=1, keepdims=True)
    return np.where(norm >= FAINT, found / np.maximum(norm, FAINT), 0).astype(np.float32)


def likeness(flat: np.ndarray, i: np.ndarray, j: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """How the details of pairs of thumbnails correlate, the second ones mirrored: float32 [k]."""
    rows, where = np.unique(np.concatenate([i, j]), return_inverse=True)
    found = details(flat[rows])
    first, second = where[: len(i)], where[len(i) :]
    out: np.ndarray = np.einsum("kd,kd->k", found[first] * SIGNS[mirror], found[second])
    return out


Sketches = tuple[np.ndarray, np.ndarray]
"""The first HEAD words of sketches and the others, uint64 each: n images as they are, then n left to right, …"""


def sketches(flat: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, Sketches]:
    """The positions whose details are not faint, and the sketches of their mirrorings."""
    rng = np.random.default_rng(derive("near twins"))
    planes = rng.standard_normal((len(V), BANDS * BAND_BITS)).astype(np.float32)
    signs = [SIGNS[:, parity[0]] for parity in PARITIES]  # of the four mirrorings, the same within a parity
    by_parity = [planes[parity] for parity in PARITIES]
    total, count = len(positions), 0
    out = np.empty((4 * total, HEAD), np.uint64), np.empty((4 * total, WORDS - HEAD), np.uint64)
    strong = np.empty_like(positions)
    for start in range(0, total, BLOCK):
        at = positions[start : start + BLOCK]
        found = details(flat[at])
        kept = found.any(axis=1)
        end = count + int(kept.sum())
        strong[count:end] = at[kept]
        parts = [found[kept][:, parity] @ part for parity, part in zip(PARITIES, by_parity, strict=True)]
        for mirror in range(4):
            sums = sum(part * sign[mirror] for part, sign in zip(parts, signs, strict=True))
            words = np.packbits(np.asarray(sums) > 0, axis=1).view(np.uint64)
            rows = slice(mirror * total + count, mirror * total + end)
            out[0][rows], out[1][rows] = words[:, :HEAD], words[:, HEAD:]
        count = end
    for mirror in range(1, 4):  # close the gaps that faint images left
        for words in out:
            words[mirror * count : (mirror + 1) * count] = words[mirror * total : mirror * total + count]
    return strong[:count], (out[0][: 4 * count], out[1][: 4 * count])


def candidates(positions: np.ndarray, found: Sketches) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of pairs whose sketches are close: two positions, the first the lower, and the mirroring of the second.

    Pairs come in the order of their positions, none twice.
    """
    n = len(positions)
    shuffled = np.random.default_rng(derive("near twins", "order")).permutation(4 * n)
    every, waiting, room = np.empty(0, np.int64), [np.empty(0, np.int64)], 0
    for band in range(BANDS):
        part, number = (found[0], band) if band < HEAD_BANDS else (found[1], band - HEAD_BANDS)
        for pairs in _in_one_bucket(_keys(part, number)[shuffled], shuffled, n):
            waiting.append(_close(*pairs, found, n))
            room += len(waiting[-1])
            if room > max(ROOM, len(every)):
                every, waiting, room = np.unique(np.concatenate([every, *waiting])), [], 0
    every = np.unique(np.concatenate([every, *waiting]))
    for start in range(0, len(every), BLOCK):
        ij, mirror = np.divmod(every[start : start + BLOCK], 4)
        i, j = np.divmod(ij, max(1, n))
        yield positions[i], positions[j], mirror


def _keys(words: np.ndarray, band: int) -> np.ndarray:
    """The bits of a band as numbers: uint32 [n]."""
    byte, rest = divmod(band * BAND_BITS, 8)
    three = words.view(np.uint8)[:, byte : byte + 3].astype(np.uint32)
    return ((three[:, 0] << 16 | three[:, 1] << 8 | three[:, 2]) >> (4 - rest)) & ((1 << BAND_BITS) - 1)


def _in_one_bucket(keys: np.ndarray, numbers: np.ndarray, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of pairs of sketches with equal keys, the lower number first; at least one is of an image as it is."""
    order = np.argsort((keys & 0xFFFF).astype(np.uint16), kind="stable")  # a radix sort, as is the next
    order = order[np.argsort((keys[order] >> 16).astype(np.uint8), kind="stable")]
    keys, numbers = keys[order], numbers[order]
    at = np.arange(len(order))
    for shift in range(1, WINDOW):
        at = at[at + shift < len(order)]
        at = at[keys[at] == keys[at + shift]]
        if not len(at):
            return
        for start in range(0, len(at), CLOSE_BLOCK):
            one, other = numbers[at[start : start + CLOSE_BLOCK]], numbers[at[start : start + CLOSE_BLOCK] + shift]
            low, high = np.minimum(one, other), np.maximum(one, other)
            as_it_is = low < n  # the mirrorings of one pair come up to four times
            yield low[as_it_is], high[as_it_is]


def _close(one: np.ndarray, other: np.ndarray, found: Sketches, n: int) -> np.ndarray:
    """The pairs of sketch numbers that are close, each as one number: (first · n + second) · 4 + mirroring."""
    head, rest = found
    differing = np.bitwise_count(head[one] ^ head[other]).sum(axis=1, dtype=np.int64)
    near = np.flatnonzero(differing <= MOST_BITS)  # most pairs of one bucket differ in more bits of the head already
    one, other, differing = one[near], other[near], differing[near]
    differing += np.bitwise_count(rest[one] ^ rest[other]).sum(axis=1, dtype=np.int64)
    near = differing <= MOST_BITS
    mirror, other = np.divmod(other[near], n)
    one = one[near]
    low, high = np.minimum(one, other), np.maximum(one, other)  # a mirroring undoes itself: the two may change places
    out: np.ndarray = ((low * n + high) * 4 + mirror)[low != high]
    return out
