"""A record that a tracker does not take keeps no other from it; a tracker that is away is another thing."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest
import tracked

from pipeline import track
from pipeline.runs.folder import Run

mlflow = pytest.importorskip("mlflow", reason="the extra `track` is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """MLflow's store in files, with an experiment whose artefacts have a place that is not here, as of some servers."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file://{tmp_path}/store"
    mlflow.MlflowClient(tracking_uri=uri).create_experiment("mine", artifact_location="file:///dev/null/there")
    return uri


def send(folder: Path, runs: list[Run], uri: str) -> int:
    planned = [SimpleNamespace(run=run, spec=run.spec, state=run.state(), name=run.id) for run in runs]
    plan = SimpleNamespace(
        cluster=SimpleNamespace(runs=str(folder)),
        grid="mine",
        runs=dict.fromkeys(run.id for run in runs),
        report_folder=folder / "report",
        in_state=lambda *states: planned,
    )
    return track.send_all(plan, argparse.Namespace(to="mlflow", uri=uri, project="mine"))  # type: ignore[arg-type]


def test_a_run_whose_files_have_no_place_keeps_no_other_from_the_tracker(
    tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tracked.pretrain(tmp_path, seed) for seed in (77, 78, 79)]
    for run in runs:
        tracked.train(run, 2)
    tracked.finish(runs[0])
    assert send(tmp_path, runs, store) == 1
    said = capsys.readouterr()
    assert said.out == "2 new\n"
    assert said.err.startswith(f"{runs[0].id}: MLflow at {store} answers and did not take all of it: [Errno 20]")
    client = mlflow.MlflowClient(tracking_uri=store)
    there = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert {run.info.run_name: run.info.status for run in there} == {
        runs[0].id: "FINISHED",
        runs[1].id: "KILLED",
        runs[2].id: "KILLED",
    }, "of that run, too, all but its files is there"
    assert send(tmp_path, runs[:1], store) == 1 and capsys.readouterr().out == "nothing was told\n"


def test_a_tracker_that_is_away_is_an_error_at_the_first_record(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.trackers.to_mlflow import Mlflow

    def away(*given: object, **named: object) -> None:
        raise OSError(111, "Connection refused")

    class Away(Mlflow):
        def __init__(self, uri: str, project: str) -> None:
            super().__init__(uri, project)
            for name in ("create_run", "get_experiment"):
                monkeypatch.setattr(self.client, name, away)

    monkeypatch.setattr("pipeline.trackers.to_mlflow.Mlflow", Away)
    runs = [tracked.pretrain(tmp_path, seed) for seed in (77, 78)]
    for run in runs:
        tracked.train(run, 1)
    with pytest.raises(ValueError, match="Connection refused; start it, or give another --uri"):
        send(tmp_path, runs, store)
    assert capsys.readouterr().err == ""
