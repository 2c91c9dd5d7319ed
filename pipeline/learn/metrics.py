"""Scores of predictions, all by scikit-learn: those of the paper's tables and some more."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics as sk

AVERAGES = ("f1_micro", "recall_micro", "f1_macro", "accuracy", "balanced_accuracy")


def score(targets: np.ndarray, scores: np.ndarray, classes: Sequence[str], task: str) -> dict[str, Any]:
    """All metrics of predictions. targets [n, classes] of 0 and 1, scores [n, classes] in [0, 1] (sigmoid).

    f1_micro and recall_micro threshold every class at 0.5, as the paper's notebook does (fidelity 3b, 39 and 40); the
    others take the class with the highest score, or threshold at 0.5 where the task is multi-label. A metric that is
    not defined is None: AUROC of a class without positives, all but accuracy where no image has a class. `majority` is
    the score of always naming the most common class.
    """
    single = task == "multi-class"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes without samples are reported as such, not warned about
        out: dict[str, Any] = _averages(targets, scores, single)
        decided = _decided(scores, single)
        precision, recall, f1, support = sk.precision_recall_fscore_support(
            targets, decided, average=None, zero_division=0
        )
        areas = [_auroc(targets[:, i], scores[:, i]) for i in range(len(classes))]
        commonest = np.eye(len(classes))[np.full(len(targets), targets.sum(axis=0).argmax())]
        out["majority"] = _averages(targets, commonest, single) if single else None
    defined = [area for area in areas if area is not None]
    out["auroc"] = float(np.mean(defined)) if defined else None
    out["per_class"] = {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(support[i]),
            "auroc": areas[i],
        }
        for i, name in enumerate(classes)
    }
    return out


def _decided(scores: np.ndarray, single: bool) -> np.ndarray:
    """The predicted classes [n, classes]: the one with the highest score, or all above 0.5."""
    return np.eye(scores.shape[1], dtype=int)[scores.argmax(axis=1)] if single else (scores > 0.5).astype(int)


def _averages(targets: np.ndarray, scores: np.ndarray, single: bool) -> dict[str, float | None]:
    at_half, decided = (scores > 0.5).astype(int), _decided(scores, single)
    there = targets.any(axis=0)
    if not there.any():
        return {**dict.fromkeys(AVERAGES), "accuracy": float(sk.accuracy_score(targets, decided))}
    recall = sk.recall_score(targets, decided, average=None, zero_division=0)
    return {
        "f1_micro": float(sk.f1_score(targets, at_half, average="micro", zero_division=0)),
        "recall_micro": float(sk.recall_score(targets, at_half, average="micro", zero_division=0)),
        "f1_macro": float(sk.f1_score(targets, decided, average="macro", zero_division=0)),
        "accuracy": float(sk.accuracy_score(targets, decided)),
        "balanced_accuracy": float(recall[there].mean()),
    }


def _auroc(targets: np.ndarray, scores: np.ndarray) -> float | None:
    return float(sk.roc_auc_score(targets, scores)) if 0 < targets.sum() < len(targets) else None
