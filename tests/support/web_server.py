"""A web server of this machine for a folder: it answers ranges, after a delay, and counts what it was asked."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class WebServer:
    """What the server was asked, and how it is to answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = ""
        self.delay = 0.0
        """Seconds before each answer."""
        self.asked: list[tuple[str, str]] = []
        """Method and path of each request."""
        self.sent = 0
        """Bytes of files."""
        self.fails = 0
        """How many of the next requests for a file are answered with an error."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[WebServer]:
    state = WebServer(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            state.asked.append((self.command, self.path))
            time.sleep(state.delay)
            path = state.folder / self.path.lstrip("/")
            failing = state.fails > 0 and with_body
            state.fails -= failing
            if failing or not path.is_file():
                self.send_response(503 if failing else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = path.read_bytes()
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start, end = (int(span[1]), int(span[2] or len(data) - 1) + 1) if span else (0, len(data))
            self.send_response(206 if span else 200)
            self.send_header("Content-Length", str(len(data[start:end])))
            if span:
                self.send_header("Content-Range", f"bytes {start}-{min(end, len(data)) - 1}/{len(data)}")
            self.end_headers()
            if with_body:
                state.sent += len(data[start:end])
                self.wfile.write(data[start:end])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
