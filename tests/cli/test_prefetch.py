"""Weights come from the hub, or from a mirror with the same protocol, with their checksums."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

TAG = "resnet18.a1_in1k"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = bytes(range(256)) * 9000  # over two megabytes: more than one block
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """A server that answers `resolve` as the hub does, for one repository only."""

    requests: list[tuple[str, str]] = []

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        type(self).requests.append((self.command, self.path))
        if self.path not in (f"/timm/{TAG}/resolve/{revision}/model.safetensors" for revision in ("main", COMMIT)):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{SHA256}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(WEIGHTS)))
        self.end_headers()
        if body:
            self.wfile.write(WEIGHTS)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a hub on this machine."""
    Hub.requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def prefetch(folder: Path, endpoint: str, *arguments: str, offline: str = "0") -> subprocess.CompletedProcess[str]:
    (folder / "site.toml").write_text('weights = "fetched"\n')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": offline}
    environment |= {
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "pipeline.prefetch", "--cluster", str(folder / "site.toml"), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_weights_are_fetched_with_their_checksum_and_only_once(tmp_path: Path, hub: str) -> None:
    first = prefetch(tmp_path, hub, "--tags", TAG)
    assert first.returncode == 0, first.stderr
    assert f"{TAG}: sha256 {SHA256}" in first.stdout
    assert (tmp_path / "fetched" / f"{TAG}.safetensors").read_bytes() == WEIGHTS
    said = json.loads((tmp_path / "fetched" / f"{TAG}.json").read_text())
    assert (said["name"], said["sha256"], said["backbone"], said["role"]) == (TAG, SHA256, TAG, "cnn")
    assert (said["licence"], said["mean"], said["std"]) == ("apache-2.0", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

    before = len(Hub.requests)
    assert before > 0
    second = prefetch(tmp_path, hub, "--tags", TAG)
    assert second.returncode == 0, second.stderr
    assert "1 backbone, 1 of them in" in second.stdout
    assert len(Hub.requests) == before


def test_a_dry_run_names_what_it_would_fetch_and_sends_no_request(tmp_path: Path, hub: str) -> None:
    done = prefetch(tmp_path, hub, "--tags", TAG, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"would fetch timm/{TAG}/model.safetensors" in done.stdout
    assert Hub.requests == []
    assert not (tmp_path / "fetched").exists()


def test_a_tag_that_the_hub_does_not_have_ends_in_a_message(tmp_path: Path, hub: str) -> None:
    done = prefetch(tmp_path, hub, "--tags", "resnet18.no_such_tag")
    assert done.returncode == 2
    assert "error: timm/resnet18.no_such_tag could not be fetched" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "fetched" / "resnet18.no_such_tag.safetensors").exists()


def test_without_a_network_the_message_says_where_to_run_the_command(tmp_path: Path) -> None:
    # offline by a setting: the hub's client tries a closed port for half a minute before it gives up
    done = prefetch(tmp_path, "http://127.0.0.1:9", "--tags", TAG, offline="1")
    assert done.returncode == 2
    assert f"error: timm/{TAG} could not be fetched" in done.stderr
    assert "run this where there is a network, or set HF_ENDPOINT to a mirror" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_grid_needs_the_backbones_that_it_starts_from_imagenet_weights(tmp_path: Path) -> None:
    done = prefetch(tmp_path, "http://127.0.0.1:9", "--grid", "cnn", "--dry-run")
    assert done.returncode == 0, done.stderr
    tags = ("resnet18.tv_in1k", "resnet50.a1_in1k", "vit_base_patch16_384.augreg_in21k_ft_in1k")  # not ResNet-200
    assert done.stdout.splitlines()[1:] == [f"would fetch timm/{tag}/model.safetensors" for tag in tags]
