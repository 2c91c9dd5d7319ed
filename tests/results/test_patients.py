"""Scores by patient in reports and figures: by hand with pandas and scikit-learn, the bootstrap by brute force."""

from __future__ import annotations

import dataclasses

import finished
import numpy as np
import pandas as pd
import pytest
import tiny
from sklearn.metrics import f1_score

from pipeline.core.seeds import derive
from pipeline.jobs.plan import make_plan
from pipeline.learn.by_group import Units
from pipeline.results import bootstrap, collect, documents, patients, report, resampled
from pipeline.results.figures import gallery
from pipeline.runs.cluster import load_cluster
from pipeline.runs.predictions import read_predictions


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_patients(tmp_path_factory.mktemp("patients"))


def plan_of(folder, preset="sound"):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return make_plan("mine.py", load_cluster("here.toml"), preset=preset)


@pytest.fixture(scope="module")
def plan(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    finished.make_grid(folder, shards, methods=("cass", "supervised"))
    return plan_of(folder)


def by_hand(run, shards, rule):
    """A frame of a run's patients: predicted and true class of those of one label; and how many are mixed."""
    groups = dict(zip(shards.rows["key"], shards.rows["group"], strict=True))
    found = read_predictions(run["predictions"])
    frame = pd.DataFrame(found.scores.astype(float), columns=list(found.classes))
    frame["true"] = found.targets.argmax(axis=1)
    frame["unit"] = [groups[key] or key for key in found.keys]
    by_unit = frame.groupby("unit", sort=False)
    aggregate = {"mean": "mean", "max": "max", "top 3": lambda values: values.nlargest(3).mean()}[rule]
    scores = by_unit[list(found.classes)].agg(aggregate)
    one = by_unit["true"].nunique() == 1
    return pd.DataFrame({"guess": scores.to_numpy().argmax(axis=1), "true": by_unit["true"].first()})[one], (~one).sum()


def test_the_comparison_is_that_of_pandas(plan, shards):
    cells = collect.cells(plan)
    found = patients.compare(cells)
    assert len(found) == sum(bool(cell.results) for cell in cells) == 8
    for each in found:
        cell = each.cell
        for number, seed in enumerate(cell.results):
            frame, mixed = by_hand(cell.runs[seed], shards, each.choice.rule)
            assert each.groups == len(frame) and each.mixed == mixed and each.images > each.groups
            images = read_predictions(cell.runs[seed]["predictions"])
            by_image = f1_score(images.targets.argmax(1), images.scores.argmax(1), average="macro")
            assert cell.metric == "f1_macro" and each.by_image[number] == pytest.approx(by_image)
            by_patient = f1_score(frame["true"], frame["guess"], average="macro")
            assert each.by_group[number] == pytest.approx(by_patient)
        assert each.group_interval[0] <= np.mean(each.by_group) <= each.group_interval[1]
        assert each.choice.reason.startswith("validation mean ")


def test_classes_that_no_scored_group_has_are_told_where_they_count_as_0(plan):
    found = patients.compare(collect.cells(plan))[0]
    assert found.present == found.classes == 2 and not any("F1 (macro)" in line for line in patients._notes([found]))
    said = patients._notes([dataclasses.replace(found, present=1)])
    assert "F1 (macro) counts classes without a group as 0: by patient or lesion at most 0.5000" in " ".join(said)


def test_an_interval_over_groups_is_that_of_drawing_whole_groups(plan):
    cell = collect.cells(plan)[0]
    seeds = [collect.predictions_of(run) for run in cell.runs.values()]
    units = Units.of_images(seeds[0].keys, cell.groups.by_key)
    found = resampled.interval(seeds, "accuracy", "multi-class", units.of)
    members = units.members()
    images = bootstrap.TestImages(derive("test images", *seeds[0].keys), units.of, len(members))
    drawn = np.concatenate(list(bootstrap._weights(images))).astype(int)
    means = []
    for counts in drawn:
        rows = np.concatenate([np.tile(members[unit], times) for unit, times in enumerate(counts)]).astype(int)
        means.append(np.mean([(s.scores[rows].argmax(1) == s.targets[rows].argmax(1)).mean() for s in seeds]))
    assert found == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    alone = bootstrap.TestImages(images.seed, np.arange(len(seeds[0].keys)), len(seeds[0].keys))
    scores = [bootstrap.resampled(seeds, "accuracy", "multi-class", each)[0] for each in (images, alone)]
    assert not np.array_equal(*scores)


def test_the_report_has_the_table_and_the_figure(plan, tmp_path):
    text = documents.as_text(report.make_report(plan))
    assert "patients: by patient or lesion" in text and "groups whose images have different labels: " in text
    assert "images have no group, each counts as one" in text
    cell = next(cell for cell in collect.cells(plan) if cell.results)
    keys = next(iter(cell.predictions.values())).keys
    units = len(Units.of_images(keys, cell.groups.by_key).names)
    assert f"{len(keys)} test images of {units} groups" in text
    drawn = gallery.draw(plan, collect.cells(plan), tmp_path, kinds=["by-group"])
    (figure,) = drawn.figures
    assert figure["name"] == "by-group-patients" and "95 % interval over resampled groups" in figure["caption"]
    assert (tmp_path / "by-group-patients.png").read_bytes().startswith(b"\x89PNG")


def test_runs_of_earlier_code_get_the_mean_and_the_table_says_so(shards, tmp_path):
    finished.make_grid(tmp_path, shards, methods=("supervised",), validation=False)
    plan = plan_of(tmp_path)
    found = patients.compare(collect.cells(plan))
    assert {each.choice.rule for each in found} == {"mean"}
    assert "where the rule is the mean because no validation scores are stored" in documents.as_text(
        report.make_report(plan)
    )


def test_without_groups_there_is_no_table(tmp_path):
    finished.make_grid(tmp_path, tiny.make_shards(tmp_path, each=20), methods=("supervised",))
    plan = plan_of(tmp_path, "paper")
    assert patients.tables(plan, collect.cells(plan)) == []
