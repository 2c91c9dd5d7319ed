"""Write plain tar files: the offset of each member is known, and the same members give the same bytes."""

from __future__ import annotations

import tarfile
from typing import IO, Literal


class TarWriter:
    """Append members to a tar; the headers hold no time, owner or host."""

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
    """The header of a member of `size` bytes, as `tarfile` makes it; for plain names it is copied from a template."""
    plain = name.encode()
    if len(plain) > 100 or not name.isascii() or size >= MAX_PLAIN_SIZE:
        return _tarfile_header(name, size, tarfile.PAX_FORMAT)
    length = b"%011o" % size
    block = bytearray(TEMPLATE)
    block[: len(plain)] = plain
    block[124:135] = length
    block[148:154] = b"%06o" % (TEMPLATE_SUM + sum(plain) + sum(length))
    return bytes(block)


def _tarfile_header(name: str, size: int, format: Literal[0, 2]) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o444
    return info.tobuf(format)


MAX_PLAIN_SIZE = 8**11  # bytes; a plain header has no room for a larger number
TEMPLATE = _tarfile_header("", 0, tarfile.USTAR_FORMAT)
TEMPLATE_SUM = int(TEMPLATE[148:154], 8) - sum(TEMPLATE[124:135])  # the checksum without name and size
