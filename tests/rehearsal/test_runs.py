"""Whole runs on a pretended GPU, to their results: where the host waits for the device, and why."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from rehearsals import tiny_spec

from pipeline.learn import finetune, loop, pretrain
from pipeline.rehearsal.cuda import TURING, pretended
from pipeline.rehearsal.evaluation import IMAGES, rehearse_evaluation
from pipeline.rehearsal.memory import Pinned
from pipeline.rehearsal.programs import data_of, hardware_of, made_up, site
from pipeline.rehearsal.seen import Seen
from pipeline.rehearsal.steps import rehearse_step
from pipeline.runs.folder import Run
from pipeline.runs.spec import PretrainSpec, Spec

WAITS = {
    ("run", "blocking upload"): "the networks go to the device once",
    ("loading", "event"): "the thread that reads ahead waits for its memory, the training does not",
    ("reading losses", "item"): "whether a loss is finite: every 50 steps, and at the end of an epoch",
    ("run", "item"): "the scale of float16 losses, once an epoch",
    ("end of an epoch", "copy to the host"): "what the collapse monitor or the validation reads",
    ("end of an epoch", "item"): "the validation loss",
    ("probes", "copy to the host"): "the features that the probes learn from",
    ("checkpoint", "item"): "the scale of float16 losses",
    ("writing", "event"): "the thread that writes waits for its copy, the training does not",
    ("resuming", "blocking upload"): "the state goes to the device once",
    ("resuming", "copy to the host"): "the features that the probes learn from, before the first step",
    ("publishing", "copy to the host"): "the weights, once",
    ("run", "copy to the host"): "the test images' scores, once; the number of averaged models after a resume",
}
"""Every wait of a run that is right, by part and kind, and what for. None is in a step."""
PAGEABLE = {
    "run": "networks and class weights, once",
    "resuming": "the state of a checkpoint, once",
}
"""The parts whose uploads are not pinned, and what they are."""
STEP = ("augmentation", "forward", "backward", "optimizer", "after the step", "averaging", "batch-norm statistics")


def run_to_the_end(spec: Spec, folder: Path, precision: str, should_stop: Any = lambda: False, images: int = 0) -> Seen:
    """What a run's job does: training, probes, results."""
    run = Run(folder / "run")
    run.folder.mkdir(exist_ok=True)
    data, hardware, place = data_of(spec, 8, images), hardware_of(TURING, precision), site(folder)
    with pretended(TURING) as seen, made_up(seen, data):
        if isinstance(spec, PretrainSpec):
            for stage in pretrain.stages(spec, run, place, hardware, should_stop):
                metrics, counters, _ = stage.write(run)
                assert "probes" in metrics
        else:
            _, counters, _ = finetune.finetune(spec, run, place, hardware, should_stop)
    assert counters.epoch == spec.epochs and len(counters.rows) == spec.epochs
    return seen


def check(seen: Seen) -> None:
    kinds = Counter({(part, kind): 0 for part, kind, _ in seen.waits})
    for (part, kind, _), count in seen.waits.items():
        kinds[part, kind] += count
    print(f"\n{dict(kinds)}\npinned at most {seen.pinned.peak / 1e6:.1f} MB")
    assert set(kinds) <= set(WAITS)
    assert not {part for part, _ in kinds} & set(STEP)
    assert {upload.part for upload in seen.uploads if not upload.pinned} <= set(PAGEABLE)
    assert not seen.mixed and not seen.gradients


@pytest.mark.parametrize("program", ["cass", "cass_vc", "dino", "dino_fb"])
def test_a_pretraining_run_waits_where_it_must(program, tmp_path):
    seen = run_to_the_end(tiny_spec(program, epochs=2), tmp_path, "float16")
    check(seen)
    assert seen.launched("probes") + seen.launched("resuming") > 0
    assert ("averaging" in {part for part, _ in seen.launches}) == (program == "cass")


@pytest.mark.parametrize("arm", [0, 1], ids=["cnn", "transformer"])
def test_a_fine_tuning_run_waits_where_it_must(arm, tmp_path):
    check(run_to_the_end(tiny_spec("finetune", arm, epochs=2), tmp_path, "float16"))


def test_a_run_that_is_stopped_continues_on_the_device(tmp_path):
    spec = dataclasses.replace(tiny_spec("cass"), epochs=3)
    answers = iter([False] * 9 + [True])  # in the last epoch, when averages are kept
    with pytest.raises(loop.Stopped):
        run_to_the_end(spec, tmp_path, "float16", lambda: next(answers))
    saved = Run(tmp_path / "run").checkpoints()
    assert len(saved) == 1
    seen = run_to_the_end(spec, tmp_path, "float16")
    check(seen)
    assert any(upload.part == "resuming" for upload in seen.uploads)


def test_a_checkpoints_copy_is_pinned_in_powers_of_two(tmp_path):
    seen = run_to_the_end(tiny_spec("cass", epochs=2), tmp_path, "float32")
    weights = Run(tmp_path / "run")["weights"].stat().st_size
    assert seen.pinned.peak > 4 * weights  # weights, averages and Adam's two moments
    pinned = Pinned()
    for size, rounded in ((1, 1), (1000, 1024), (1024, 1024), (1025, 2048)):
        kept = pinned.note(torch.empty(size, dtype=torch.uint8))
        assert pinned.live == rounded and kept in pinned
        del kept
    assert (pinned.live, pinned.peak) == (0, 2048)


@pytest.mark.parametrize(("program", "batch"), [("cass", 16), ("finetune", 8)])
def test_a_whole_runs_peak_is_that_of_its_evaluation_where_batches_are_small(program, batch, tmp_path):
    spec = tiny_spec(program, epochs=1, batch_size=batch)
    step = rehearse_step(spec, precision="float16")
    evaluation = rehearse_evaluation(spec, precision="float16")
    assert evaluation["weights"] == step.peak["weights"] and evaluation["optimizer"] == 0
    assert 0.9 < evaluation["gradients"] / step.peak["weights"] <= 1  # of the last step
    found = run_to_the_end(spec, tmp_path, "float16", images=IMAGES).memory.peak_bytes
    assert found == pytest.approx(sum(evaluation.values()) + step.peak["optimizer"], rel=0.02)
    assert found > 1.1 * step.peak_bytes
