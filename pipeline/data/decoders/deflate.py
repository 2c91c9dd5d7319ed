"""Unpack deflated data for its checksum alone: decoders stop at the last pixel and do not reach it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from pipeline.data.decoders.formats import BadImage

PIECE = 1 << 20  # bytes that are unpacked at once


def unpacked_size(parts: Iterable[bytes | memoryview]) -> int:
    """The bytes that a stream in several parts unpacks to; raises `BadImage` if it is damaged or not whole."""
    unpack, size = zlib.decompressobj(), 0
    try:
        for part in parts:
            rest: bytes | memoryview = part
            while rest and not unpack.eof:
                size += len(unpack.decompress(rest, PIECE))
                rest = unpack.unconsumed_tail
        while not unpack.eof and (piece := unpack.decompress(b"", PIECE)):
            size += len(piece)
    except zlib.error as error:
        raise BadImage(f"is damaged: {error}") from None
    if not unpack.eof:
        raise BadImage(f"is damaged: its packed data ends after {size:,} bytes without a checksum")
    return size
