"""Scores of predictions, all by scikit-learn: what the paper's tables hold and what stands beside it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics as sk


def score(targets: np.ndarray, scores: np.ndarray, classes: Sequence[str], task: str) -> dict[str, Any]:
    """All metrics of predictions. targets [n, classes] of 0 and 1, scores [n, classes] in [0, 1] (sigmoid).

    f1_micro and recall_micro decide every class at 0.5, as the paper's notebook (fidelity 3b, 39 and 40); the others
    take the class of the highest score, or 0.5 a class where the task is multi-label. A metric that is not defined
    (AUROC of a class without positives) is None.
    """
    at_half = (scores > 0.5).astype(int)
    single = task == "multi-class"
    decided = np.eye(len(classes), dtype=int)[scores.argmax(axis=1)] if single else at_half
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes without samples are reported as such, not warned about
        precision, recall, f1, support = sk.precision_recall_fscore_support(
            targets, decided, average=None, zero_division=0
        )
        out: dict[str, Any] = {
            "f1_micro": sk.f1_score(targets, at_half, average="micro", zero_division=0),
            "recall_micro": sk.recall_score(targets, at_half, average="micro", zero_division=0),
            "f1_macro": sk.f1_score(targets, decided, average="macro", zero_division=0),
            "accuracy": sk.accuracy_score(targets, decided),
        }
        if single:
            out["balanced_accuracy"] = sk.balanced_accuracy_score(targets.argmax(1), scores.argmax(1))
        else:
            out["balanced_accuracy"] = float(np.mean(recall[support > 0]))
        areas = [_auroc(targets[:, i], scores[:, i]) for i in range(len(classes))]
    defined = [area for area in areas if area is not None]
    out["auroc"] = float(np.mean(defined)) if defined else None
    out["majority_accuracy"] = float(targets.mean(axis=0).max()) if single else None
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
    return {name: float(value) if isinstance(value, np.floating) else value for name, value in out.items()}


def _auroc(targets: np.ndarray, scores: np.ndarray) -> float | None:
    return float(sk.roc_auc_score(targets, scores)) if 0 < targets.sum() < len(targets) else None
