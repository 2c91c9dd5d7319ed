"""An export is loaded by stock timm, without this project, and scores as the run did."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as parquet
import pytest
import tiny
from commands import command
from PIL import Image
from repository import ROOT

from pipeline.core import files
from pipeline.data.layouts import UserDataset
from pipeline.data.shards.read import read_pixels
from pipeline.jobs import execute
from pipeline.models import export, model_card, onnx
from pipeline.models.info import ModelInfo
from pipeline.models.network import Network
from pipeline.runs.spec import DatasetRef

NEEDS_ONNX = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in onnx.NEEDED), reason="the extra onnx is not installed"
)
TOLERANCE = 1e-5  # of a sigmoid, between batches of other sizes and another number of threads

STOCK = """
import csv, sys
from pathlib import Path
from types import SimpleNamespace
from PIL import Image
assert not any(name.split(".")[0] == "pipeline" for name in sys.modules)
try:
    import pipeline
    raise SystemExit("pipeline is on the path")
except ImportError:
    pass
{code}
print("\\t".join(model.pretrained_cfg["label_names"]))
import torch
with torch.no_grad():
    for path in sorted(Path(sys.argv[1]).iterdir()):
        scores = model(transform(Image.open(path).convert("RGB"))[None]).sigmoid()[0]
        print("\\t".join([path.stem, *(f"{{score:.9g}}" for score in scores.tolist())]))
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def home(shards):
    """The folder that relative paths of the cluster file `local` start at."""
    return shards.folder.parent.parent


@pytest.fixture(scope="module")
def site(home):
    return tiny.make_cluster(home, checkpoint_minutes=60.0)


@pytest.fixture(scope="module")
def pretrained(shards, site):
    run = tiny.announce(tiny.make_pretrain(shards, epochs=2), site)
    assert execute.execute_run(run) == 0
    return run


@pytest.fixture(scope="module", params=[0, 1], ids=["cnn", "transformer"])
def finetuned(request, shards, site, pretrained):
    run = tiny.announce(tiny.make_finetune(shards, pretrained.spec, arm=request.param, epochs=2), site)
    assert execute.execute_run(run) == 0
    return run


@pytest.fixture(scope="module")
def test_images(shards, home):
    """The images of the test part as the shards hold them, in files named by their keys."""
    rows = shards.of_split("test")
    out = home / "test images"
    out.mkdir()
    for row, image in zip(rows, read_pixels(shards, rows), strict=True):
        Image.fromarray(image).save(out / f"{shards.rows['key'][row]}.png")
    return out


@pytest.fixture(scope="module")
def exported(finetuned, home):
    out = home / f"export of {finetuned.id}"
    done = command("export", finetuned.id, "--out", out, cwd=home)
    assert done.returncode == 0, done.stderr
    return out


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def stored(run) -> tuple[list[str], dict[str, list[float]]]:
    """The classes of a run, and its scores by key."""
    table = parquet.read_table(run["predictions"]).to_pydict()
    classes = [name.removeprefix("score:") for name in table if name.startswith("score:")]
    return classes, {
        key: list(row) for key, *row in zip(table["key"], *(table[f"score:{name}"] for name in classes), strict=True)
    }


def load_code(out: Path) -> str:
    """The lines of the model card that load the network."""
    found = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1].replace("FOLDER", str(out))


def test_stock_timm_without_this_project_gives_the_runs_own_predictions(exported, finetuned, test_images, tmp_path):
    assert len(load_code(exported).splitlines()) == 3
    script = tmp_path / "stock.py"
    script.write_text(STOCK.format(code=load_code(exported)))
    # flags that hide an editable install hide timm too, so its finder is taken out by hand
    finder = "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f).lower()]\n"
    script.write_text(finder + f"sys.path = [p for p in sys.path if p != {str(ROOT)!r}]\n" + script.read_text())
    command = [sys.executable, "-W", "error", str(script), str(test_images)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    head, *lines = [line.split("\t") for line in done.stdout.splitlines()]
    classes, expected = stored(finetuned)
    assert head == classes
    assert {key for key, *_ in lines} == set(expected) and expected
    for key, *scores in lines:
        assert [float(score) for score in scores] == pytest.approx(expected[key], abs=TOLERANCE)


def test_timm_prepares_an_image_of_any_shape_as_this_project_does(exported):
    import timm

    from pipeline.data import images

    model = timm.create_model(f"local-dir:{exported}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    pixels = np.random.default_rng(0).integers(0, 256, (70, 131, 3), dtype=np.uint8)
    known = ModelInfo.of_export(exported)
    mine = Network.of_export(exported, known).images(images.resize(pixels, tiny.SIZE)[None])[0]
    grey_level = 1 / 255 / min(transform.transforms[-1].std.tolist())  # Pillow rounds otherwise
    assert abs(mine.numpy() - transform(Image.fromarray(pixels)).numpy()).max() < 1.01 * grey_level


def test_an_arm_of_a_pretraining_run_gives_its_features_and_takes_a_new_head(pretrained, home):
    import timm
    import torch

    from pipeline.learn import backbones

    for arm in pretrained.spec.arms:
        out = home / f"arm {arm.name}"
        done = command("export", pretrained.folder, "--arm", arm.name, "--out", out, cwd=home)
        assert done.returncode == 0, done.stderr
        model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
        whole = backbones.build(arm.backbone, outputs=1000, image_size=tiny.SIZE, weights="random", folder=Path())
        whole.load_state_dict(backbones.load_arm(pretrained["weights"], arm.name))
        images = torch.randn(2, 3, tiny.SIZE, tiny.SIZE, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            wanted = whole.eval().forward_head(whole.forward_features(images), pre_logits=True)
            assert torch.equal(model(images), wanted)
            headed = timm.create_model(f"local-dir:{out}", pretrained=True, num_classes=5).eval()
            assert headed(images).shape == (2, 5)
            assert torch.equal(headed.forward_head(headed.forward_features(images), pre_logits=True), wanted)


def test_names_of_classes_are_no_markup_in_the_model_card(finetuned):
    classes = ("a|b", "<img src=x onerror=alert(1)>", "[click](http://x)", "two\nlines\n# title", "`*_x_*`")
    info = dataclasses.replace(ModelInfo.of_run(finetuned), classes=classes)
    result = finetuned.result()
    scores = next(iter(result.metrics["per_class"].values()))
    metrics = {**result.metrics, "per_class": dict.fromkeys(classes, scores)}
    run = SimpleNamespace(
        id=finetuned.id, spec=finetuned.spec, result=lambda: dataclasses.replace(result, metrics=metrics)
    )
    card = model_card.text(run, info, with_onnx=False, shards=Path("nowhere"))
    assert "<img" not in card and "[click](" not in card and "\n# title" not in card
    rows = [line for line in card.splitlines() if line.startswith("| ") and "onerror" in line]
    assert len(rows) == 2  # the task, and the class's scores
    table = card[card.index("| class |") :].partition("\n\n")[0].splitlines()
    assert len(table) == 2 + len(classes)
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_the_model_card_says_what_the_run_was(exported, finetuned):
    card = (exported / "README.md").read_text(encoding="utf-8")
    spec, result = finetuned.spec, finetuned.result()
    block = re.search(r"```json\n(.*?)```", card, re.DOTALL)
    assert block is not None and json.loads(block[1]) == files.read_json(finetuned["spec"])
    for text in (
        finetuned.id,
        spec.backbone,
        spec.dataset.fingerprint,
        result.code,
        f"torch {result.versions['torch']}",
        f"| balanced_accuracy | {result.metrics['balanced_accuracy']:.4f} |",
        "not a medical device",
        "CASS, self-supervised, 2 epochs from random weights on tiny",
        f"Temperature T = {result.temperature:.4f}, fitted on 8 validation images: `(logits / T).softmax(-1)`",
        "| disc | 32 | 4 | 4 |",
        "| unlabelled | 10 | 0 | 0 |",
        "- 0 of 8 test images have a twin in train",
        "- 0 quarantined, 0 passed over, 0 left out because they leak",
    ):
        assert text in card
    assert str(ROOT) not in card and str(finetuned.folder.parent) not in card


def test_an_export_that_is_there_already_is_left_alone(exported, finetuned, home):
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in exported.iterdir()}
    done = command("export", finetuned.id, "--out", exported, cwd=home)
    assert done.returncode == 0 and "nothing to do" in done.stdout
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in exported.iterdir()} == before


@NEEDS_ONNX
def test_the_onnx_graph_gives_the_runs_own_predictions_for_any_batch(exported, finetuned, test_images, home):
    import onnxruntime

    done = command("export", finetuned.id, "--out", exported, "--onnx", cwd=home)
    assert done.returncode == 0, done.stderr
    printed = re.search(r"largest difference from torch ([0-9.e+-]+)", done.stdout)
    assert printed is not None and float(printed[1]) < 1e-3
    assert "model.onnx" in (exported / "README.md").read_text(encoding="utf-8")
    paths = sorted(test_images.iterdir())
    known = ModelInfo.of_export(exported)
    images = Network.of_export(exported, known).images(np.stack([read(path) for path in paths]))
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    _, expected = stored(finetuned)
    wanted = np.array([expected[path.stem] for path in paths])
    for size in (1, 3, len(paths)):
        logits = session.run(["logits"], {"images": images[:size].numpy()})[0]
        assert 1 / (1 + np.exp(-logits.astype(np.float64))) == pytest.approx(wanted[:size], abs=TOLERANCE)
    assert "nothing to do" in command("export", finetuned.id, "--out", exported, "--onnx", cwd=home).stdout


@NEEDS_ONNX
def test_an_onnx_graph_that_differs_is_refused(exported, monkeypatch):
    trained = Network.of_export(exported, ModelInfo.of_export(exported))
    monkeypatch.setattr(onnx, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="differs from torch by .* was not written; export without --onnx"):
        onnx.graph(trained)


def test_a_missing_extra_is_named_before_anything_is_written(monkeypatch):
    monkeypatch.setattr(onnx, "NEEDED", ("onnx", "no_such_library"))
    with pytest.raises(ValueError, match="--onnx needs no_such_library, of the extra `onnx`: python -m pip install"):
        onnx.check_installed()


def test_an_export_killed_half_way_leaves_no_folder_and_the_next_is_whole(pretrained, home, tmp_path):
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from pipeline.runs.folder import Run\n"
        "from pipeline.models import export, model_card\n"
        "from pipeline.models.info import ModelInfo\n"
        "model_card.text = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)\n"  # at the last of the files
        "run = Run(Path(sys.argv[1]))\n"
        "export.write(run, ModelInfo.of_run(run, 'cnn'), Path(sys.argv[2]), with_onnx=False, shards=Path('nowhere'))\n"
    )
    parent = tmp_path / "exports"
    parent.mkdir()
    killed = subprocess.run([sys.executable, "-c", code, str(pretrained.folder), str(parent / "new")])
    assert killed.returncode == -signal.SIGKILL
    assert not (parent / "new").exists() and any(parent.iterdir())  # a folder is there, under another name
    for out in (parent / "new", tmp_path / "undisturbed"):
        assert command("export", pretrained.id, "--arm", "cnn", "--out", out, cwd=home).returncode == 0
    assert [path.name for path in parent.iterdir()] == ["new"]
    assert {path.name: path.read_bytes() for path in (parent / "new").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "undisturbed").iterdir()
    }


def test_a_folder_with_anything_else_is_not_touched(finetuned, exported, pretrained, home, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = command("export", finetuned.id, "--out", tmp_path, cwd=home)
    assert done.returncode == 2 and "exists and is not an export of" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    done = command("export", pretrained.id, "--arm", "cnn", "--out", exported, cwd=home)
    assert done.returncode == 2 and f"is an export of model of {finetuned.id}" in done.stderr
    other = dataclasses.replace(ModelInfo.of_export(exported), weights_sha256="0" * 64)
    with pytest.raises(ValueError, match="with other weights; choose another --out"):
        export.exists(exported, other)


def test_what_cannot_be_exported_is_an_error_that_names_the_next_step(
    finetuned, pretrained, shards, site, home, tmp_path
):
    waiting = tiny.announce(tiny.make_finetune(shards, None, seed=5), site)
    for arguments, message in (
        ((waiting.id,), "is pending; only a finished run has a network"),
        ((finetuned.id, "--arm", "cnn"), "is a fine-tuning run and has one network; leave --arm cnn out"),
        ((pretrained.id,), "with the arms cnn (test_resnet.r160_in1k), transformer (test_vit.r160_in1k); choose one"),
        ((pretrained.id, "--arm", "mlp"), "there is no arm 'mlp'; known: cnn, transformer"),
        (("nothing",), "there is no run 'nothing'"),
    ):
        done = command("export", *arguments, "--out", tmp_path / "out", cwd=home)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
    shutil.rmtree(waiting.folder)


def test_where_an_image_may_have_several_classes_each_is_decided_alone(home, site, tmp_path):
    rng = np.random.default_rng(0)
    raw = tmp_path / "raw"
    raw.mkdir()
    with open(raw / "labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "red", "green", "blue"])
        for number in range(60):
            marks = rng.integers(0, 2, 3)
            pixels = rng.integers(0, 60, (40, 40, 3)) + marks * 180
            Image.fromarray(pixels.astype(np.uint8)).save(raw / f"{number}.png")
            rows.writerow([f"{number}.png", *marks])
    shards = tiny.shard(UserDataset("colours", "csv"), raw, home / "shards")
    spec = tiny.make_finetune(shards, None, epochs=10, patience=10)
    spec = dataclasses.replace(spec, dataset=DatasetRef(name="colours", fingerprint=shards.fingerprint))
    run = tiny.announce(spec, site)
    assert execute.execute_run(run) == 0
    assert ModelInfo.of_run(run).task == "multi-label"
    done = command("predict", run.id, raw, "--csv", tmp_path / "scores.csv", cwd=home)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "scores.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 60
    for row in found:
        above = [name for name in ("red", "green", "blue") if float(row[f"score:{name}"]) > 0.5]
        assert [name for name in row["predicted"].split(";") if name] == [n for n in shards.classes if n in above]
    assert len({row["predicted"] for row in found}) > 2
