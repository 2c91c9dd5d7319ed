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

import given
import pytest
import torch
from commands import command
from safetensors.torch import load_file

from pipeline.learn import backbones, weights

TAG = "resnet18.a1_in1k"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = bytes(range(256)) * 9000  # over two megabytes: more than one block
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """A server that answers `resolve` as the hub does, for a tag's repository and those that a test adds."""

    requests: list[tuple[str, str]] = []
    contents: dict[str, bytes] = {}
    """By repository and file."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        type(self).requests.append((self.command, self.path))
        name = self.path.strip("/").replace(f"/resolve/{COMMIT}/", "/").replace("/resolve/main/", "/")
        content = type(self).contents.get(name)
        if content is None:
            self.send_response(404)
            there = any(each.startswith(name.rsplit("/", 1)[0] + "/") for each in type(self).contents)
            self.send_header("X-Error-Code", "EntryNotFound" if there else "RepoNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a hub on this machine."""
    Hub.requests, Hub.contents = [], {f"timm/{TAG}/model.safetensors": WEIGHTS}
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


def test_a_repository_of_the_hub_is_fetched_checked_and_described_by_its_own_config(tmp_path: Path, hub: str) -> None:
    model = given.save(tmp_path / "theirs.safetensors", 64)
    config = {
        "architecture": given.TAG,
        "num_classes": 0,
        "model_args": {**given.ARGUMENTS, "img_size": 64, "dynamic_img_size": True},
        "pretrained_cfg": {
            "mean": given.MEAN,
            "std": given.STD,
            "license": "cc-by-nc-nd-4.0",
            "input_size": [3, 64, 64],
        },
    }
    content = (tmp_path / "theirs.safetensors").read_bytes()
    Hub.contents |= {"lab/theirs/config.json": json.dumps(config).encode(), "lab/theirs/model.safetensors": content}
    broken = dict(config, model_args={**given.ARGUMENTS, "depth": 3})
    Hub.contents |= {"lab/other/config.json": json.dumps(broken).encode(), "lab/other/model.safetensors": content}
    torch.save(model.state_dict(), tmp_path / "old.bin")
    Hub.contents |= {"lab/old/config.json": json.dumps(config).encode()}
    Hub.contents |= {"lab/old/pytorch_model.bin": (tmp_path / "old.bin").read_bytes()}
    done = prefetch(tmp_path, hub, "--weights", "hf-hub:lab/old,hf-hub:lab/theirs,hf-hub:lab/other")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "does not hold the weights of vit_small_patch16_dinov3" in done.stderr
    assert 'Missing key(s) in state_dict: "blocks.2.' in done.stderr
    found = weights.known("hf-hub:lab/theirs", tmp_path / "fetched")
    assert (found.backbone, found.role) == (given.TAG, "transformer")
    assert found.weights.sha256 == hashlib.sha256(content).hexdigest()
    assert (found.weights.licence, found.weights.input_size) == ("cc-by-nc-nd-4.0", 64)
    assert (found.weights.normalisation, found.weights.arguments) == ((given.MEAN, given.STD), given.ARGUMENTS)
    old = weights.known("hf-hub:lab/old", tmp_path / "fetched").weights
    assert load_file(weights.weights_file(old.name, tmp_path / "fetched", old)).keys() == model.state_dict().keys()
    again = backbones.build(
        given.TAG, outputs=3, image_size=64, weights="given", folder=tmp_path / "fetched", given=found.weights
    )
    assert torch.equal(again.blocks[1].mlp.fc1.weight, model.blocks[1].mlp.fc1.weight)


def bring(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return command("prefetch", "--file", *arguments, cwd=folder)


def test_a_state_dict_of_torch_is_stored_as_safetensors_and_a_config_next_to_it_is_read(tmp_path: Path) -> None:
    model = given.model(64)
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}}, tmp_path / "a.pth"
    )
    config = {"architecture": given.TAG, "model_args": given.ARGUMENTS, "pretrained_cfg": {"mean": given.MEAN}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = bring(tmp_path, "a.pth", "--name", "mine", "--licence", "MIT")
    assert done.returncode == 0, done.stderr
    found = weights.known("mine", tmp_path / "weights")
    assert (found.weights.mean, found.weights.std, found.weights.licence) == (given.MEAN, (0.229, 0.224, 0.225), "MIT")
    stored = weights.weights_file("mine", tmp_path / "weights", found.weights)
    assert stored.name == f"{found.weights.sha256}.safetensors"
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in load_file(stored).items())
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == sorted([stored.name, "mine.json"])
    (tmp_path / "config.json").unlink()
    assert json.loads(bring(tmp_path, "a.pth", *given.FLAGS).stdout)["licence"] == "CC-BY-4.0"
    assert weights.known("a", tmp_path / "weights").weights.sha256 == found.weights.sha256


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("absent.safetensors",), "there is no file absent.safetensors"),
        (("mine.safetensors",), "does not say of which network it is; give --backbone"),
        (("mine.safetensors", "--backbone", "nonsense"), "knows no model 'nonsense'"),
        (("mine.safetensors", "--backbone", "resnet18"), 'Missing key(s) in state_dict: "conv1.weight"'),
        (("mine.safetensors", "--backbone", given.TAG, "--argument", "nonsense=1"), "timm does not build"),
        (("mine.safetensors", *given.FLAGS, "--argument", "embed_dim=64"), "size mismatch for cls_token"),
        (("mine.safetensors", *given.FLAGS, "--name", "imagenet"), "'imagenet' is no name for weights"),
        (("mine.safetensors", *given.FLAGS, "--std", "0,1,1"), "those of std above zero"),
        (("text.safetensors", *given.FLAGS), "does not hold the weights of"),
        (("code.pth", *given.FLAGS), "is no state dict that torch reads with weights_only"),
    ],
)
def test_a_file_that_cannot_be_used_ends_in_one_line_and_leaves_nothing(
    arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    given.save(tmp_path / "mine.safetensors", 64)
    (tmp_path / "text.safetensors").write_text("not a file of weights")
    torch.save({"code": Path("anything")}, tmp_path / "code.pth")
    done = bring(tmp_path, *arguments)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.glob("weights/*"))


def test_a_licence_that_nobody_tells_is_unknown_and_weights_that_are_not_there_name_their_command(
    tmp_path: Path,
) -> None:
    given.save(tmp_path / "mine.safetensors", 64)
    flags = [flag for flag in given.FLAGS if flag not in ("--licence", "CC-BY-4.0")]
    assert bring(tmp_path, "mine.safetensors", *flags).returncode == 0
    assert weights.known("mine", tmp_path / "weights").weights.licence == "unknown"
    for name, call in (
        ("yours", "--file FILE --name yours"),
        ("hf-hub:lab/theirs", "--weights hf-hub:lab/theirs"),
        (given.TAG + ".lvd1689m", f"--weights {given.TAG}.lvd1689m"),
    ):
        done = command("launch", "--grid", "demo", "--weights", name, "--dry-run", cwd=tmp_path)
        assert done.returncode == 2 and done.stderr.strip().endswith(f"python -m pipeline.prefetch {call}")
    done = command("launch", "--grid", "main", "--weights", "mine", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2 and "the grid main takes no weights (mine); frozen, small and demo do" in done.stderr
    done = command("launch", "--grid", "demo", "--weights", "mine", "--dry-run", cwd=tmp_path)
    assert done.returncode == 3 and "python -m pipeline.shard toy" in done.stdout  # which is all that it lacks
