"""Names that MLflow takes, of classes and grids that have any; its own checks and its folder store judge them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipeline.trackers.record import Record
from pipeline.trackers.to_mlflow import Mlflow, names_of

pytest.importorskip("mlflow", reason="the extra `track` is not installed")
CLASSES = ("正常", "肿瘤", "a+b", "a*b", "../x", "/x", "x//z", ".", "..", "a/../b", "naevus (benign)")
CLASSES += ("x" * 260, "x" * 261)
PREFIX = "result/per_class."


def test_each_class_has_a_name_of_its_own_that_mlflow_takes() -> None:
    from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, path_not_unique, validate_param_and_metric_name

    names = names_of(f"{PREFIX}{name}.f1" for name in CLASSES)
    assert len(set(names.values())) == len(names) == len(CLASSES)
    for name in names.values():
        assert validate_param_and_metric_name(name) and not path_not_unique(name) and name.isascii()
        assert len(name) <= MAX_ENTITY_KEY_LENGTH
    assert names[f"{PREFIX}naevus (benign).f1"] == f"{PREFIX}naevus _benign_.f1"
    assert names_of(["/", "", "a/", "..", "plain/name.f1"])["plain/name.f1"] == "plain/name.f1"


def test_a_run_of_such_classes_in_a_grid_with_a_sign_in_its_name_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    result = {f"{PREFIX}{name}.f1": 0.9 - number / 100 for number, name in enumerate(CLASSES)}
    record = Record("a-1", "done", tags={"grid.mine (1)": "yes"}, result=result, began=1e9, ended=1e9 + 5)
    other = dataclasses.replace(record, tags={"grid.mine (2)": "yes"})
    sent = [Mlflow(f"file://{tmp_path}", "names").send(each) for each in (record, record, other)]
    assert sent == ["new", "", "more"]
    (run,) = Mlflow(f"file://{tmp_path}", "names").there.values()
    assert sorted(run.data.metrics.values()) == sorted(result.values())
