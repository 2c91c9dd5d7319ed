"""Results as tables, against the files of the runs; plans, made and launched."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import tiny
from finished import finish, make_grid

from pipeline import api
from pipeline.jobs import local
from pipeline.jobs.submissions import has_launch
from pipeline.runs.folder import Run
from pipeline.runs.predictions import read_predictions


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with shards, a grid of 24 fine-tunes and 6 pretraining runs, and all of its runs but supervised ones."""
    folder = tmp_path_factory.mktemp("api")
    make_grid(folder, tiny.make_shards(folder), methods=("cass", "dino"))
    return folder


@pytest.fixture
def grid(home, monkeypatch):
    monkeypatch.chdir(home)
    return {"grid": "mine.py", "cluster": "here.toml"}


def test_results_have_a_row_for_each_run(grid, home):
    found = api.results(**grid)
    assert isinstance(found, pa.Table) and found.num_rows == 30
    rows = {row["run"]: row for row in found.to_pylist()}
    done = [row for row in rows.values() if row["state"] == "done"]
    assert len(done) == 22 and {row["method"] for row in rows.values() if row["state"] == "missing"} == {"supervised"}
    for row in done:
        result = Run(home / "runs" / row["run"]).result()
        if row["kind"] == "finetune":
            assert row["auroc"] == result.metrics["auroc"] and row["parent"] in rows
            assert row["label_fraction"] in (0.1, 1.0) and row["arm"] in ("cnn", "transformer")
        else:
            assert (row["auroc"], row["parent"], row["backbone"]) == (None, None, None)
        assert (row["seconds"], row["dataset"], row["image_size"]) == (1.0, "tiny", 32)
    assert {row["seed"] for row in done} == {77, 78}


def test_a_summary_has_the_mean_and_spread_of_each_cell(grid):
    cells = api.summary(**grid).to_pylist()
    runs = api.results(**grid).to_pylist()
    assert len(cells) == 12
    cell = next(cell for cell in cells if cell["method"] == "cass" and cell["column"] == "10%")
    scores = [
        run[cell["metric"]]
        for run in runs
        if (run["method"], run["label_fraction"], run["backbone"]) == ("cass", 0.1, cell["backbone"])
    ]
    assert (cell["n"], cell["wanted"], len(scores)) == (2, 2, 2)
    assert cell["mean"] == pytest.approx(sum(scores) / 2)
    assert cell["sd"] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
    empty = next(cell for cell in cells if cell["method"] == "supervised")
    assert (empty["n"], empty["mean"], empty["sd"]) == (0, None, None)


@pytest.mark.parametrize(("part", "file"), [("test", "predictions"), ("val", "val_predictions")])
def test_predictions_have_a_row_for_each_run_and_image(grid, home, part, file):
    found = api.predictions(**grid, part=part)
    runs = found["run"].unique().to_pylist()
    assert len(runs) == 16
    one = found.filter(pc.equal(found["run"], runs[0]))
    stored = read_predictions(Run(home / "runs" / runs[0])[file])
    assert one["key"].to_pylist() == stored.keys and one["group"].null_count == len(stored.keys)
    scores = np.stack([one[f"score:{name}"].to_numpy() for name in stored.classes], axis=1)
    assert np.array_equal(scores, stored.scores)
    names = np.array(stored.classes)
    assert [each for (each,) in one["true"].to_pylist()] == names[stored.targets.argmax(axis=1)].tolist()
    assert [each for (each,) in one["predicted"].to_pylist()] == names[stored.scores.argmax(axis=1)].tolist()


def test_a_run_is_found_by_a_part_of_its_id_and_has_its_metrics_and_curves(grid, home):
    wanted = next(row for row in api.results(**grid).to_pylist() if row["state"] == "done" and row["auroc"])
    run = api.open_run(wanted["run"][-12:], cluster="here.toml")
    assert (run.id, run.state, run.kind) == (wanted["run"], "done", "finetune")
    assert run.metrics["auroc"] == wanted["auroc"] and run.spec["seed"] == wanted["seed"]
    curves = run.curves()
    assert curves["epoch"].to_pylist() == [0, 1, 2, 3] and curves["val_loss"].null_count == 0
    parent = api.open_run(wanted["parent"], cluster="here.toml")
    assert parent.kind == "pretrain" and parent.curves()["cnn_spread"].type == pa.float64()
    with pytest.raises(ValueError, match="there is no run 'nothing'"):
        api.open_run("nothing", cluster="here.toml")


def test_a_plan_counts_lists_and_says_what_is_missing(grid):
    plan = api.make_plan(**grid)
    assert plan.grid == "mine" and plan.counts()["finetune"] == {"done": 16, "missing": 8}
    runs = plan.runs()
    assert runs.num_rows == 30 and runs["parent"].null_count == 6 + 8 and plan.problems() == []
    assert "mine" not in api.grids() and "demo" in api.grids()


def test_wrong_arguments_are_errors_that_say_what_to_give(grid, home):
    with pytest.raises(ValueError, match="datasets is 'tiny'; give a list of names"):
        api.make_plan(**grid, datasets="tiny")
    with pytest.raises(ValueError, match="part is 'train'; known: test, val"):
        api.predictions(**grid, part="train")
    with pytest.raises(ValueError, match="jobs is 0; give 1 or more"):
        api.make_plan(**grid).launch(jobs=0)
    with pytest.raises(ValueError, match="wait=False needs Slurm"):
        api.make_plan(**grid).launch(wait=False)
    with pytest.raises(ValueError, match="nothing was started; first:\n  shards are missing"):
        api.make_plan("demo", cluster="here.toml").launch()


def test_a_grid_without_predictions_gives_an_empty_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = api.predictions("demo")
    assert found.num_rows == 0 and "key" in found.column_names


def test_a_launch_from_python_runs_what_is_missing_with_the_chosen_jobs(tmp_path, monkeypatch):
    shards = tiny.make_shards(tmp_path)
    make_grid(tmp_path, shards, methods=("cass", "dino"))
    monkeypatch.chdir(tmp_path)
    seen = []

    def run_plan(plan, progress):
        """As the executor of this machine, but the runs are finished without training."""
        seen.append((plan.cluster.jobs, plan.cluster.ray, has_launch(tmp_path / "runs")))
        for planned in plan.in_state("missing"):
            finish(planned.spec, plan.cluster, shards)
            planned.refresh()
        progress.show(plan)
        return True

    monkeypatch.setattr(local, "run_plan", run_plan)
    plan = api.make_plan("mine.py", cluster="here.toml")
    assert plan.launch(jobs=2, ray=False) == {"pretrain": {"done": 6}, "finetune": {"done": 24}}
    assert seen == [(2, False, True)] and not has_launch(tmp_path / "runs")
    assert plan.launch() == plan.counts() and len(seen) == 1  # nothing is left to run
