"""Plain tar files whose writer knows where each member's bytes lie and writes the same bytes every time."""

from __future__ import annotations

import tarfile
from typing import IO, Literal


class TarWriter:
    """Append members to a tar; the headers carry no time, owner or host."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.position = 0

    def add(self, name: str, data: bytes) -> int:
        """Write one member; returns the offset of its first byte in the file."""
        block = header(name, len(data))
        offset = self.position + len(block)
        padding = b"\0" * (-len(data) % tarfile.BLOCKSIZE)
        self.file.write(block + data + padding)
        self.position = offset + len(data) + len(padding)
        return offset

    def close(self) -> None:
        """Write the end marker, padded to tar's record size."""
        end = b"\0" * 2 * tarfile.BLOCKSIZE
        self.file.write(end + b"\0" * (-(self.position + len(end)) % tarfile.RECORDSIZE))


def header(name: str, size: int) -> bytes:
    """What comes before a member of `size` bytes: what `tarfile` makes, for plain names by filling its form in."""
    plain = name.encode()
    if len(plain) > 100 or not name.isascii() or size >= MOST_PLAIN:
        return _made(name, size, tarfile.PAX_FORMAT)
    length = b"%011o" % size
    block = bytearray(FORM)
    block[: len(plain)] = plain
    block[124:135] = length
    block[148:154] = b"%06o" % (FORM_SUM + sum(plain) + sum(length))
    return bytes(block)


def _made(name: str, size: int, format: Literal[0, 2]) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o444
    return info.tobuf(format)


MOST_PLAIN = 8**11  # bytes; what a plain header has room for
FORM = _made("", 0, tarfile.USTAR_FORMAT)
FORM_SUM = int(FORM[148:154], 8) - sum(FORM[124:135])  # of all that does not change
