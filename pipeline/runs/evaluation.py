"""A fine-tune's test on another dataset: what it says, next to its predictions, in the run's folder.

`evaluation-<dataset>-<fingerprint>.json` is written last and holds the checksum of the predictions: without it, or
where it does not fit them or the run's weights, the run has not been evaluated.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import files, seals
from pipeline.runs.folder import Run
from pipeline.runs.predictions import Predictions, read_predictions, write_predictions

MOVE = "delete it, and evaluate the run again"
OF_PATIENT = "of a patient or lesion with a twin of a training image"  # in `left_out`; earlier code scored them


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was evaluated, what was left out, and the metrics. Its fields are keys of the JSON file."""

    dataset: str
    fingerprint: str
    weights_sha256: str
    """Of the run's weights."""
    mapping: dict[str, str]
    """Our class by theirs."""
    images: int
    """Those that were scored."""
    left_out: dict[str, int]
    """How many images were not, by the reason."""
    twins: list[list[str]]
    """Images with a twin among those that the run learnt from: key, kind, and the twin's dataset, split and key."""
    differs: list[str]
    """In what else than their size the images were stored in another way than those that the run learnt from."""
    task: str
    metrics: dict[str, Any]


def write(run: Run, evaluation: Evaluation, predictions: Predictions) -> None:
    """Publish an evaluation; one of the same dataset that was there before is gone first."""
    path = run.evaluation(evaluation.dataset, evaluation.fingerprint)
    path.unlink(missing_ok=True)
    scores = run.evaluation_scores(path)
    write_predictions(
        scores,
        predictions.keys,
        predictions.classes,
        predictions.targets,
        predictions.scores,
        predictions.groups,
    )
    files.write_json(path, seals.sealed(dataclasses.asdict(evaluation), [scores]))


def read(run: Run, path: Path) -> tuple[Evaluation, Predictions]:
    """An evaluation with its predictions; raises `Damaged` or `ValueError` where a file is not what was written."""
    evaluation, value = _parse(path)
    seals.checked_sha256(run.evaluation_scores(path), value)
    return evaluation, read_predictions(run.evaluation_scores(path))


def _parse(path: Path) -> tuple[Evaluation, dict[str, Any]]:
    value = seals.read_sealed(path)
    with files.reading(path, MOVE):
        return Evaluation(**{field.name: value[field.name] for field in dataclasses.fields(Evaluation)}), value


def known(run: Run, dataset: str, fingerprint: str, mapping: Mapping[str, str], weights: str) -> Evaluation | None:
    """The evaluation on that dataset by that mapping; None where there is none that is whole and of these weights.

    weights: their SHA-256; empty where the run is of earlier code, which wrote no checksums.
    """
    path = run.evaluation(dataset, fingerprint)
    with contextlib.suppress(FileNotFoundError, ValueError):
        evaluation, value = _parse(path)
        seals.check_sizes(run.folder, value)
        if evaluation.mapping == dict(mapping) and weights in ("", evaluation.weights_sha256):
            return evaluation
    return None


def all_of(run: Run) -> Sequence[tuple[Evaluation, Predictions]]:
    """The evaluations of the run's present weights; those that are damaged or of other weights are left out."""
    weights = run.weights_checksum
    out = []
    for path in run.evaluations():
        with contextlib.suppress(FileNotFoundError, ValueError):
            evaluation, predictions = read(run, path)
            if weights in ("", evaluation.weights_sha256):
                out.append((evaluation, predictions))
    return out


def damage(run: Run) -> list[str]:
    """What is wrong with a run's evaluations, reading every byte; the run itself is not damaged by it."""
    out = []
    for path in run.evaluations():
        try:
            read(run, path)
        except (OSError, ValueError) as error:
            out.append(f"{error}; {MOVE}")
    return out
