"""Shards behind an address: their manifest and index are copied once, their images are read by range ahead of need.

Plain HTTP with connections that stay open. `s3://bucket/key` is read at the store that AWS_ENDPOINT_URL names, or at
Amazon's, without credentials. Whoever reads an image compares it with its checksum in the index.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np

from pipeline.core import files
from pipeline.data.shards.index import Shards, open_shards

ADDRESS = "address.json"  # in the copy of a shard folder: where its tars are
TRIES = 6
PAUSE = 0.5  # seconds; doubled after every failure
TIMEOUT = 60.0  # seconds without an answer
READERS = 16  # requests at the same time
GAP = 1 << 14  # bytes between two images that are read with them, since a request of their own would take longer
SPAN = 1 << 22  # bytes of a request for several images
MOST = 1 << 12  # images that wait to be used


def copy_small_files(addresses: Sequence[str], folder: Path) -> None:
    """Copy manifest and index of each shard folder at `addresses` to `folder`, once.

    Raises `ValueError` for an address without shards, and where a file is not what the manifest says.
    """
    for address in addresses:
        copy = folder / address.rpartition("/")[2]
        if (copy / "manifest.json").exists():
            continue
        with files.lock(folder / ".copy.lock", what=str(folder), patience=600), contextlib.closing(Web(address)) as web:
            if (copy / "manifest.json").exists():
                continue
            manifest = web.read("manifest.json")
            with files.publish(copy / "index.parquet") as file:
                file.write(web.read("index.parquet"))
            files.write_json(copy / ADDRESS, {"address": address})
            with files.publish(copy / "manifest.json") as file:
                file.write(manifest)
            try:
                assert open_shards(copy).index_checksum
            except ValueError:
                (copy / "manifest.json").unlink()  # the next call copies it again
                raise


def address_of(shards: Shards) -> str | None:
    """Where the tars of shards are, if not in their folder."""
    path = shards.folder / ADDRESS
    return str(files.read_json(path, dict, keys=("address",))["address"]) if path.exists() else None


def http_address(address: str) -> str:
    """An address as HTTP reads it."""
    if (found := re.fullmatch(r"s3://([^/]+)/(.*)", address)) is None:
        return address
    bucket, key = found.groups()
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "").rstrip("/")
    return f"{endpoint}/{bucket}/{key}" if endpoint else f"https://{bucket}.s3.amazonaws.com/{key}"


class Web:
    """Files below an address, whole or in part; each thread has a connection of its own."""

    def __init__(self, address: str) -> None:
        self.address = address
        parts = urlsplit(http_address(address))
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"shards is {address!r}; give a folder, http://…, https://… or s3://bucket/…")
        self._connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._path = parts.netloc, parts.path.rstrip("/")
        self._mine = threading.local()
        self._open: list[http.client.HTTPConnection] = []
        self.close = weakref.finalize(self, _close, self._open)

    def read(self, name: str, span: tuple[int, int] | None = None) -> bytes:
        """A file, or its bytes from the first to before the second number; raises `ValueError` after TRIES failures."""
        headers = {"Range": f"bytes={span[0]}-{span[1] - 1}"} if span else {}
        error = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                connection = self._connection()
                connection.request("GET", f"{self._path}/{quote(name)}", headers=headers)
                answer = connection.getresponse()
                data = answer.read()
            except (OSError, http.client.HTTPException) as failure:
                self._drop()
                error = str(failure) or type(failure).__name__
                continue
            if answer.status == (206 if span else 200) and (span is None or len(data) == span[1] - span[0]):
                return data
            error = f"{answer.status} {answer.reason}"
            if answer.status < 500 and answer.status != 429:
                break
        hint = ": it gives no ranges" if error.startswith("200") else ""
        raise ValueError(f"{self.address}/{name} cannot be read ({error}{hint}); check the address in the cluster file")

    def _connection(self) -> http.client.HTTPConnection:
        if getattr(self._mine, "connection", None) is None:
            self._mine.connection = self._connect(self._host, timeout=TIMEOUT)
            self._open.append(self._mine.connection)
        connection: http.client.HTTPConnection = self._mine.connection
        return connection

    def _drop(self) -> None:
        self._mine.connection.close()
        self._open.remove(self._mine.connection)
        self._mine.connection = None


def _close(connections: Sequence[http.client.HTTPConnection]) -> None:
    for connection in connections:
        connection.close()


class RemoteTars:
    """The stored images of shards behind an address; those that are expected are read before they are asked for."""

    def __init__(self, shards: Shards, address: str) -> None:
        self.rows = shards.rows
        self.web = Web(address)
        self.pool = ThreadPoolExecutor(READERS, "ranges")
        self.lock = threading.RLock()
        self.waiting: OrderedDict[int, tuple[Future[bytes], int, int]] = OrderedDict()
        """By row: what reads a part of a tar, and where in it the image is."""

    def expect(self, rows: Sequence[int] | np.ndarray) -> None:
        """Begin to read what will be asked for soon, the first of it first; what is too much is left for later."""
        with self.lock:
            new = dict.fromkeys(int(row) for row in rows if int(row) not in self.waiting)
            for span in self._spans(sorted(list(new)[: max(0, MOST - len(self.waiting))])):
                self._read(span)

    def _read(self, span: Sequence[int]) -> None:
        start = self.rows["offset"][span[0]]
        end = self.rows["offset"][span[-1]] + self.rows["size"][span[-1]]
        future = self.pool.submit(self.web.read, self.rows["tar"][span[0]], (start, end))
        for row in span:
            self.waiting[row] = (future, self.rows["offset"][row] - start, self.rows["size"][row])

    def _spans(self, rows: Sequence[int]) -> list[list[int]]:
        """Rows whose images are close to each other in one tar, together."""
        out: list[list[int]] = []
        for row in rows:
            tar, start, size = (self.rows[name][row] for name in ("tar", "offset", "size"))
            if out and (last := out[-1]) and tar == self.rows["tar"][last[-1]]:
                gap = start - self.rows["offset"][last[-1]] - self.rows["size"][last[-1]]
                if 0 <= gap <= GAP and start + size - self.rows["offset"][last[0]] <= SPAN:
                    last.append(row)
                    continue
            out.append([row])
        return out

    def bytes_of(self, row: int) -> bytes:
        """The stored bytes of an image; raises `ValueError` if they cannot be read."""
        with self.lock:
            if int(row) not in self.waiting:
                if len(self.waiting) >= MOST:  # perhaps of what was expected once and is never asked for
                    self.waiting.popitem(last=False)
                self._read([int(row)])
            future, start, size = self.waiting.pop(int(row))
        return future.result()[start : start + size]

    def name_of(self, row: int) -> str:
        return f"{self.web.address}/{self.rows['tar'][row]}"
