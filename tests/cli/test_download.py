"""Raw files arrive whole from a server that drops connections, and files that differ are deleted."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import pipeline.download
from pipeline.core import console
from pipeline.data import fetch
from pipeline.data.datasets.isic import DATASET
from pipeline.data.records import Source

TRUTH, METADATA, INPUT = (source.target for source in DATASET.sources)
ZIP = f"{INPUT}.zip"
IMAGES = {f"{INPUT}/ISIC_{n:07d}.jpg": np.random.default_rng(n).bytes(700_000) for n in range(6)}


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


class Bucket(BaseHTTPRequestHandler):
    """Answers as S3 does, with ranges and ETags, or fails in the ways below."""

    files: dict[str, bytes]
    etags: dict[str, str]
    drop_after: int | None  # bytes after which a connection is cut
    has_ranges: bool
    endless: int  # bytes that are sent after the announced ones
    hold: threading.Event | None  # only the first 300,000 bytes are sent before it is set
    asked: list[tuple[str, str, int]]  # method, file, first byte

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        cls = type(self)
        name = self.path.rpartition("/")[2]
        wanted = self.headers.get("Range", "bytes=0-")
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if cls.has_ranges else 0
        cls.asked.append((self.command, name, start))
        if name not in cls.files:
            self.send_error(404)
            return
        data = cls.files[name]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        if name in cls.etags:
            self.send_header("ETag", f'"{cls.etags[name]}"')
        self.end_headers()
        if body:
            end = len(data) if cls.drop_after is None else min(len(data), start + cls.drop_after)
            for at in range(start, end, 65536):
                self.wfile.write(data[at : min(at + 65536, end)])
                if cls.hold is not None and at > 300_000:
                    cls.hold.wait(60)
            for _ in range(0, cls.endless, 65536):
                self.wfile.write(bytes(65536))
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a folder on this machine that holds the three files."""
    if shutil.which("curl") is None:
        pytest.skip("downloads need curl, which is not installed")
    Bucket.files = {TRUTH: b"image,MEL\nISIC_0000000,1.0\n", METADATA: b"image,lesion_id\n", ZIP: zipped(IMAGES)}
    Bucket.etags = {name: hashlib.md5(data).hexdigest() for name, data in Bucket.files.items()}
    Bucket.etags[ZIP] = "0123456789abcdef0123456789abcdef-1164"  # as S3 gives for large files: no checksum
    Bucket.endless = 0
    Bucket.drop_after, Bucket.has_ranges, Bucket.hold, Bucket.asked = None, True, None, []
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "PAUSE", 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # clients that were killed
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/2019"
    server.shutdown()
    thread.join()
    server.server_close()


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int | str | None:
    """The command within this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["download", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        console.run_command(pipeline.download.main)
    return caught.value.code


def assert_complete(out: Path) -> None:
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.glob(f"{INPUT}/*")} == IMAGES
    for name in (TRUTH, METADATA):
        assert (out / name).read_bytes() == Bucket.files[name]
    rest = {path.name for path in out.iterdir()} - {TRUTH, METADATA, INPUT}
    assert rest == {"download.json", ".download.lock"}


def test_all_parts_arrive_checked_and_unpacked(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "isic", "--out", tmp_path / "raw", "--from", bucket) == 0
    assert_complete(tmp_path / "raw")
    out = capsys.readouterr().out
    assert "checked by the server's MD5" in out
    assert "checked by its size (no checksum is published) and the CRC-32 of its 6 files" in out
    record = json.loads((tmp_path / "raw" / "download.json").read_text())
    assert record[INPUT]["sha256"] == hashlib.sha256(Bucket.files[ZIP]).hexdigest()
    assert record[TRUTH]["from"] == f"{bucket}/{TRUTH}"

    asked = len(Bucket.asked)
    assert command(monkeypatch, "isic", "--out", tmp_path / "raw", "--from", bucket) == 0
    assert "3 of 3 parts are already in" in capsys.readouterr().out
    assert len(Bucket.asked) == asked


def test_a_dropped_connection_continues_where_it_broke_off(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bucket.drop_after = 1_500_000
    assert command(monkeypatch, "isic", "--out", tmp_path, "--from", bucket) == 0
    assert_complete(tmp_path)
    starts = [start for method, name, start in Bucket.asked if (method, name) == ("GET", ZIP)]
    assert starts == [0, 1_500_000, 3_000_000]


def test_a_server_without_ranges_sends_the_file_from_the_beginning(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Bucket.endless = 0
    Bucket.drop_after, Bucket.has_ranges = 1_500_000, False
    assert command(monkeypatch, "isic", "--out", tmp_path, "--from", bucket) == 2
    assert f"broke off at 0 of {len(Bucket.files[ZIP]):,} bytes, 6 times in a row" in capsys.readouterr().err
    assert not (tmp_path / INPUT).exists()

    Bucket.drop_after = None
    (part,) = tmp_path.glob(f".{ZIP}.*.part")
    part.write_bytes(Bucket.files[ZIP][:1000])
    assert command(monkeypatch, "isic", "--out", tmp_path, "--from", bucket) == 0
    assert_complete(tmp_path)


def test_a_killed_download_continues_where_it_stopped(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bucket.hold = threading.Event()
    words = [sys.executable, "-m", "pipeline.download", "isic", "--out", str(tmp_path), "--from", bucket]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts: list[Path] = []
    while not (parts and parts[0].stat().st_size > 200_000):
        assert process.poll() is None
        time.sleep(0.01)
        parts = list(tmp_path.glob(f".{ZIP}.*.part"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    there = parts[0].stat().st_size
    assert 0 < there < len(Bucket.files[ZIP])
    assert parts[0].read_bytes() == Bucket.files[ZIP][:there]

    Bucket.hold.set()
    Bucket.asked = []
    assert command(monkeypatch, "isic", "--out", tmp_path, "--from", bucket) == 0
    assert_complete(tmp_path)
    assert [start for method, name, start in Bucket.asked if method == "GET" and name == ZIP] == [there]


def test_a_stopped_unpacking_continues(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, done = fetch.files.publish, []

    def publish(path: Path, *arguments: object, **options: object) -> object:
        if path.suffix == ".jpg":
            done.append(path)
            if len(done) == 4:
                raise KeyboardInterrupt
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(fetch.files, "publish", publish)
    assert command(monkeypatch, "isic", "--out", tmp_path, "--from", bucket) == 130
    assert not (tmp_path / INPUT).exists()
    Bucket.asked = []
    assert command(monkeypatch, "isic", "--out", tmp_path, "--from", bucket) == 0
    assert_complete(tmp_path)
    assert len(done) == 4 + 3  # the first three were not unpacked again
    assert not [entry for entry in Bucket.asked if entry[0] == "GET"]  # and nothing was fetched again


def test_a_file_that_differs_from_the_servers_checksum_is_deleted(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Bucket.etags[TRUTH] = "0" * 32
    assert command(monkeypatch, "isic", "--out", tmp_path, "--from", bucket) == 2
    error = capsys.readouterr().err
    assert f"{TRUTH} did not arrive intact: md5 is " in error and f", not {'0' * 32}; the file was deleted" in error
    assert {path.name for path in tmp_path.iterdir()} == {".download.lock"}


def test_a_file_is_checked_by_its_published_checksum(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sha256 = hashlib.sha256(Bucket.files[ZIP]).hexdigest()

    def offer(checksum: str) -> None:
        source = Source(address=f"https://nowhere.example/{ZIP}", target=INPUT, sha256=checksum)
        monkeypatch.setattr(type(DATASET), "sources", (source,))

    offer("f" * 64)
    assert command(monkeypatch, "isic", "--out", tmp_path, "--from", bucket) == 2
    assert f"sha256 is {sha256}, not {'f' * 64}" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {".download.lock"}
    offer(sha256)
    assert command(monkeypatch, "isic", "--out", tmp_path, "--from", bucket) == 0
    assert "checked by its published SHA-256" in capsys.readouterr().out


def test_a_damaged_archive_is_deleted_and_fetched_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Bucket.files[ZIP]
    Bucket.files[ZIP] = whole[:2_000_000] + b"\0" * 10 + whole[2_000_010:]
    assert command(monkeypatch, "isic", "--out", tmp_path, "--from", bucket) == 2
    assert "part is damaged (Bad CRC-32" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.part")) and not (tmp_path / INPUT).exists()
    Bucket.files[ZIP] = whole
    assert command(monkeypatch, "isic", "--out", tmp_path, "--from", bucket) == 0
    assert_complete(tmp_path)


def test_two_versions_of_a_file_are_never_joined(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f".{ZIP}.an-older-one.part").write_bytes(b"of another file" * 100)
    assert command(monkeypatch, "isic", "--out", tmp_path, "--from", bucket) == 0
    assert_complete(tmp_path)


@pytest.mark.parametrize("name", ["../escaped.jpg", f"{INPUT}/../../escaped.jpg", "/escaped.jpg"])
def test_an_archive_cannot_write_outside_its_folder(
    name: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Bucket.files[ZIP] = zipped({name: b"no"})
    assert command(monkeypatch, "isic", "--out", tmp_path / "raw", "--from", bucket) == 2
    assert f"which is not in {INPUT}" in capsys.readouterr().err
    assert not list(tmp_path.rglob("escaped.jpg"))


def test_a_dry_run_names_the_public_addresses_and_makes_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "isic", "--out", tmp_path / "raw", "--dry-run") == 0
    out = capsys.readouterr().out
    assert f"would fetch https://isic-challenge-data.s3.amazonaws.com/2019/{ZIP} to " in out
    assert out.count("would fetch") == 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dermofit",), "dermofit: no address gives its files to everyone. It is sold under licence"),
        (("autoimmune",), "autoimmune: no address gives its files to everyone. It is private"),
        (("brain_mri",), "brain_mri: no address gives its files to everyone. It is public: kaggle.com"),
        (("iscc",), "there is no 'iscc' among datasets; known: autoimmune, brain_mri"),
    ],
)
def test_a_dataset_without_a_public_address_is_an_error_that_says_how_to_get_it(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(monkeypatch, *arguments, "--out", tmp_path / "raw") == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_that_the_server_lacks_and_a_missing_curl_are_errors(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del Bucket.files[TRUTH]
    assert command(monkeypatch, "isic", "--out", tmp_path, "--from", bucket) == 2
    assert f"{bucket}/{TRUTH} cannot be fetched: " in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    assert command(monkeypatch, "isic", "--out", tmp_path, "--from", bucket) == 2
    assert "curl is not installed; install it" in capsys.readouterr().err


def test_a_server_that_sends_more_than_it_announced_is_stopped_there(bucket: str, tmp_path: Path) -> None:
    """curl itself keeps to Content-Length; a server that gives it for HEAD alone sends what it likes."""
    Bucket.endless = 1 << 28
    size = len(Bucket.files[TRUTH])
    part = tmp_path / "part"
    remote = fetch.RemoteFile(f"{bucket}/{ZIP}", size, "")
    fetch.fetch(remote, part, progress=console.silent)
    assert part.stat().st_size == size + 1
    with pytest.raises(
        ValueError, match=f"did not arrive intact: bytes is {size + 1}, not {size}; the file was deleted"
    ):
        fetch.check(part, remote, None, progress=console.silent)
    assert not part.exists()


def test_an_empty_file_on_the_server_is_an_error_that_names_it(bucket: str) -> None:
    Bucket.files[TRUTH] = b""
    with pytest.raises(ValueError, match=f"{TRUTH} is empty by what the server says"):
        fetch.read_headers(f"{bucket}/{TRUTH}")
