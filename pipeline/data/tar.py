"""Plain tar files whose writer knows where each member's bytes lie and writes the same bytes every time."""

from __future__ import annotations

import tarfile
from typing import IO


class TarWriter:
    """Append members to a tar; the headers carry no time, owner or host."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.position = 0

    def add(self, name: str, data: bytes) -> int:
        """Write one member; returns the offset of its first byte in the file."""
        header = tarfile.TarInfo(name)
        header.size = len(data)
        header.mode = 0o444
        block = header.tobuf(tarfile.USTAR_FORMAT if len(name) <= 100 else tarfile.PAX_FORMAT)
        offset = self.position + len(block)
        padding = b"\0" * (-len(data) % tarfile.BLOCKSIZE)
        self.file.write(block + data + padding)
        self.position = offset + len(data) + len(padding)
        return offset

    def close(self) -> None:
        """Write the end marker, padded to tar's record size."""
        end = b"\0" * 2 * tarfile.BLOCKSIZE
        self.file.write(end + b"\0" * (-(self.position + len(end)) % tarfile.RECORDSIZE))
