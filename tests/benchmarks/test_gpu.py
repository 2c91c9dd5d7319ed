"""The programme of `make gpu`, rehearsed on a CPU as on a machine where only what it must have is installed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import bare
import numpy as np
import pytest
import torch
from commands import command

from pipeline.benchmarks.gpu import machine, page, runner, speed, steps, worker
from pipeline.benchmarks.gpu.programme import Programme, Sheet, Unfinished
from pipeline.data import images, resizing
from pipeline.learn.board import add_scalars, open_board
from pipeline.runs.folder import Run

TABLES = [
    "Machine",
    "Bits",
    "The step of CASS",
    "Fine-tunes that share a GPU",
    "Brain MRI, without leaks: F1 by labels",
    "Brain MRI, without leaks: pretraining",
    "Brain MRI, as the curator split them: F1 by labels",
    "Brain MRI, as the curator split them: pretraining",
]


@pytest.fixture
def programme(tmp_path) -> Programme:
    folders = {name: tmp_path / name for name in ("scratch", "out", "wheels", "weights")}
    return Programme(quick=True, raw=None, minutes=1.0, **folders)


@pytest.mark.slow
def test_a_rehearsal_on_a_bare_machine_that_is_killed_continues_where_it_was(tmp_path):
    words = [sys.executable, "-m", "pipeline.bench", "gpu", "--quick", "--raw", "nowhere"]
    words += ["--scratch", "scratch", "--out", "out"]
    out, environment = tmp_path / "out" / "gpu-quick", bare.environment(tmp_path / "bare")
    first = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 600
    while not (out / "speed" / "ours.json").exists():
        assert first.poll() is None and time.monotonic() < deadline, first.stderr.read().decode()
        time.sleep(0.05)
    first.kill()
    first.wait()
    first.stderr.close()
    before = {path: path.read_bytes() for path in out.glob("*/*.json") if path.parent.name != "machine"}
    assert "rehearsal" in json.loads((out / "gpu.json").read_text())

    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.read_bytes() for path in before} == before
    written = json.loads((out / "gpu.json").read_text())
    assert [(step["failed"], step["left"]) for step in written["steps"]] == [({}, [])] * 5
    assert [table["title"] for step in written["steps"] for table in step["tables"]] == TABLES
    text = (out / "gpu.md").read_text()
    assert text in done.stdout and "A REHEARSAL on the CPU" in text and "DRAWN images" in text
    assert "found: no optional package" in text and "simplejpeg is not here: shards are PNG" in text
    assert "1 kills of each kind of run: the same bits" in text and "pytest is not installed" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_one_line_says_how_to_rehearse(tmp_path):
    done = command("bench", "gpu", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "torch sees no GPU here" in done.stderr and "make gpu REHEARSE=1" in done.stderr


def test_results_of_another_gpu_are_not_mixed(programme):
    programme.write("machine", "facts", {"gpu": "Another GPU"})
    with pytest.raises(ValueError, match="has results of Another GPU, and this is .*; give another --out"):
        runner.check_machine(programme)


class FakeStep:
    """A step whose parts fail in the way that their names say."""

    TITLE, MINUTES = "a step that fails", 1.0

    def run(self, programme, part):
        if part == "stopped":
            raise Unfinished
        if part != "good":
            raise RuntimeError(part)
        return {"value": 1}

    def parts(self, programme):
        return ["bad\nin two lines", "good", "never"]

    def sheets(self, programme, found):
        return [Sheet(title="Fake", header=("found",), rows=[(f"{len(found)} of the parts is good",)])]


def test_each_part_has_a_result_of_its_own_and_a_lost_gpu_ends_the_process(programme, monkeypatch, capsys):
    for module in (worker, page):
        monkeypatch.setattr(module, "STEPS", {"fake": FakeStep()})
    assert worker.work("fake", programme, ["bad\nin two lines", "good"]) == 0
    text = (programme.out / "gpu.md").read_text()
    assert "- failed: fake, bad" in text and "1 of the parts is good" in text
    assert "- not done yet: fake: 1 of 3 parts, the next is never" in text
    assert programme.found("fake", "bad\nin two lines")["error"] == "RuntimeError: bad"
    assert programme.found("fake", "good")["value"] == 1
    assert programme.is_done("fake", "good") and not programme.is_done("fake", "bad\nin two lines")
    assert worker.work("fake", programme, ["CUDA error: lost", "good"]) == 1
    assert steps.current(programme, "fake").read_text() == "CUDA error: lost"
    assert worker.work("fake", programme, ["stopped", "good"]) == 75
    assert programme.found("fake", "stopped") is None
    assert "good" in capsys.readouterr().err


def test_a_process_is_stopped_with_all_that_it_started_when_its_time_is_over(tmp_path):
    script = "sleep 300 & echo $! > child; wait"
    process = subprocess.Popen(["sh", "-c", script], cwd=tmp_path, start_new_session=True)
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
        time.sleep(0.01)
    assert runner.wait(process, time.monotonic()) is None
    stat = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    deadline = time.monotonic() + 20
    while stat.exists() and stat.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.returncode == -15


def test_the_programme_reaches_the_process_of_a_step_as_it_is(programme):
    assert steps.from_json(steps.to_json(programme)) == programme


@pytest.mark.parametrize("pip", [True, False])
def test_wheels_that_fit_are_taken(programme, monkeypatch, capsys, pip):
    assert machine.take_wheels(programme) is None
    programme.wheels.mkdir()
    programme.scratch.mkdir()
    info = "brought-1.0.dist-info"
    for tag in ("py3-none-any", "cp27-cp27m-win32"):
        with zipfile.ZipFile(programme.wheels / f"brought-1.0-{tag}.whl", "w") as wheel:
            wheel.writestr("brought.py", "VALUE = 1")
            wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
            wheel.writestr(f"{info}/RECORD", "")
    if not pip:
        monkeypatch.setattr(machine, "find_spec", lambda name: None)
    folder = machine.take_wheels(programme)
    assert (folder / "brought.py").read_text() == "VALUE = 1"
    assert "cp27-cp27m-win32.whl is left out" in capsys.readouterr().out
    assert machine.take_wheels(programme) == folder


def test_tables_are_escaped_in_the_page():
    lines = page.table_lines(Sheet(title="t", header=("a", "b"), rows=[("x|y", 2)], notes=["a note"]))
    assert lines == ["| a | b |", "| --- | --- |", r"| x\|y | 2 |", "", "- a note"]


@pytest.mark.parametrize(("height", "width", "size"), [(224, 224, 384), (451, 600, 64), (37, 501, 40)])
@pytest.mark.parametrize("channels", [3, 4])
def test_torch_resizes_to_the_same_bits_where_the_fast_resizer_is_absent(height, width, size, channels, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    monkeypatch.setattr(resizing, "cykooz_resizer", None)
    assert np.array_equal(images.resize(pixels, size), resizing._by_cykooz(pixels, size))
    assert resizing.resized_by() == "torch"


def test_jpeg_without_its_encoder_is_written_by_pillow_and_the_manifest_can_say_so(monkeypatch):
    pixels = np.kron(np.random.default_rng(0).integers(0, 256, (12, 12, 4)), np.ones((4, 4, 1))).astype(np.uint8)
    fast = {quality: images.encode(pixels, format="jpeg", quality=quality) for quality in (None, 96)}
    assert images.makers("jpeg")["encoded"].startswith("simplejpeg-")
    monkeypatch.setattr(images, "simplejpeg", None)
    assert images.makers("jpeg")["encoded"].startswith("pillow-")
    slow = {quality: images.encode(pixels, format="jpeg", quality=quality) for quality in (None, 96)}
    assert slow[96] == fast[96]
    one, other = (images.decode_stored(each[None]).astype(int) for each in (fast, slow))
    assert abs(one - other).max() <= 8 and abs(one - pixels[..., :3]).mean() >= abs(other - pixels[..., :3]).mean()


def test_a_run_writes_no_tensorboard_where_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    board = open_board(Run(tmp_path), 0)
    add_scalars(board, {"loss": 1.0}, 0)
    board.close()
    assert list(tmp_path.iterdir()) == []


def test_the_model_takes_the_rows_that_train_as_the_project_does():
    def row(seconds, **more):
        return {"seconds": seconds, "batch": 16, "precision": "float16", "kind": "cass", "reserved": 7, **more}

    found = {speed.MULTIPLICATION: {"gigaflops": 400.0}, "ours": row(0.1), "ours, with its loading": row(0.2)}
    found |= {"ours, batches of 32": row(0.2, batch=32), "ours, float32": row(0.8, precision="float32")}
    found |= {"ours, any algorithms": row(0.01), "ours, both arms compiled": {"skipped": "torch cannot compile here"}}
    assert speed.teraflops(found) == {"float16": 16 / 0.2 * 0.4, "float32": 16 / 0.8 * 0.4}
    assert speed.reserved(found) == [("cass", 16, 7), ("cass", 32, 7), ("cass", 16, 7)]


def test_the_page_says_what_failed_and_what_is_left(programme):
    programme.write("machine", "facts", {"gpu": None, "cpu": "a|b"})
    programme.write("exactness", "GPU tests", {"error": "no | luck"})
    text = page.page_text(
        programme,
        [
            {
                "name": "exactness",
                "title": "t",
                "tables": [],
                "failed": {"GPU tests": "no | luck"},
                "left": ["kills"],
                "parts": {},
            }
        ],
    )
    assert r"# Measured on a\|b" in text and r"- failed: exactness, GPU tests: no \| luck" in text
    assert "- not done yet: exactness: 1 of 1 parts, the next is kills" in text
    assert "A REHEARSAL" in text and "by `make gpu REHEARSE=1`, which continues" in text
