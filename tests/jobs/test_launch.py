"""Launching for real: the local executor runs a grid to its end, whatever happens on the way."""

from __future__ import annotations

import shutil
import signal
import time

import pytest
import tiny
from sites import BROKEN, Site

from pipeline.core import files, seals


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("launch")).folder.parent


@pytest.fixture
def site(tmp_path, shards):
    return Site(tmp_path, shards)


def test_a_grid_runs_to_its_end_once_and_is_reported(site):
    code, out = site.run("launch", "--dry-run")
    assert code == 0 and "missing" in out
    assert not (site.folder / "runs").exists()

    code, out = site.run("launch", "--jobs", "2")
    assert code == 0, out
    assert "3 of 3 runs are done" in out
    runs = site.runs()
    assert sorted(runs) == ["cass", "cass-test_resnet-100pct", "supervised-test_vit-100pct"]
    assert {run.state() for run in runs.values()} == {"done"}

    before = {name: run["result"].stat().st_mtime_ns for name, run in runs.items()}
    code, out = site.run("launch")
    assert code == 0 and "nothing to start" in out
    assert {name: run["result"].stat().st_mtime_ns for name, run in runs.items()} == before

    code, out = site.run("report")
    assert code == 0
    value = runs["cass-test_resnet-100pct"].result().metrics["balanced_accuracy"]
    assert f"{value:.4f} (1)" in out
    for name in ("report.txt", "report.md", "report.tex", "report.csv"):
        assert (site.folder / "reports" / "mine" / name).stat().st_size > 100

    code, out = site.run("status")
    assert code == 0 and "3 done" in out


def test_a_failed_run_fails_alone_and_waits_for_retry(site):
    site.write_grid(change=BROKEN)
    code, out = site.run("launch", "--jobs", "2")
    assert code == 1, out
    assert "1 of 3 runs are done" in out
    assert "revision 99 of cass" in out and "log.txt" in out
    runs = site.runs()
    assert runs["cass"].state() == "failed"
    assert runs["cass-test_resnet-100pct"].state() == "pending"
    assert runs["supervised-test_vit-100pct"].state() == "done"

    failed_at = runs["cass"]["error"].stat().st_mtime_ns
    code, out = site.run("launch")
    assert code == 1
    assert runs["cass"]["error"].stat().st_mtime_ns == failed_at

    code, out = site.run("status")
    assert "failed" in out and "revision 99 of cass" in out and "which is failed" in out

    code, out = site.run("launch", "--retry")
    assert code == 1
    assert runs["cass"]["error"].stat().st_mtime_ns > failed_at


def test_ctrl_c_saves_every_run_and_the_same_command_continues(site):
    epochs = 60  # long enough to be stopped and found running
    site.write_grid(epochs=epochs)
    process = site.start("launch")
    run = site.wait_for_a_step("cass")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, out
    assert run.state() == "interrupted"
    assert run.checkpoints()

    # a launch that is killed leaves its run running; the next one waits for it instead of starting it twice
    process = site.start("launch")
    stopped = run["progress"].stat().st_mtime_ns
    deadline = time.monotonic() + 120
    while run["progress"].stat().st_mtime_ns == stopped and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()  # not communicate: the run holds the pipe
    process.stdout.close()
    assert run.state() == "running"
    starts = run["log"].read_text().count("float32, 1 threads")
    code, out = site.run("status", "--json")
    assert '"state": "running"' in out
    code, out = site.run("launch")
    assert code == 0, out
    assert run["log"].read_text().count("float32, 1 threads") == starts == 2
    assert len(files.read_jsonl(run["metrics"])) == epochs


def test_a_dataset_without_labels_in_a_split_is_said_before_and_its_pretraining_runs_continue(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "unlabelled")
    (manifest,) = (tmp_path / "unlabelled").glob("*/manifest.json")
    value = files.read_json(manifest)
    value["counts"]["test"]["unlabelled"] = value["counts"]["test"]["images"]
    files.write_json(manifest, seals.sealed(value, [manifest.parent / "index.parquet"]))
    site = Site(tmp_path, tmp_path / "unlabelled")

    said = "tiny has no image with a label in test, so 2 fine-tunes cannot start and the others continue"
    code, out = site.run("launch", "--dry-run")
    assert code == 3 and f"not met:\n  {said}" in out
    code, out = site.run("launch")
    assert code == 1 and f"not met: {said}" in out and "1 of 3 runs are done" in out
    assert {name: run.state() for name, run in site.runs().items()} == {"cass": "done"}
    code, out = site.run("status")
    assert "1 done" in out and "2 no labels" in out
