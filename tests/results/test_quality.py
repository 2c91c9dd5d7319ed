"""Curves, sensitivities, calibration, both networks' mean and the data section, against scikit-learn and arithmetic."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import finished
import numpy as np
import pytest
import tiny
from commands import command
from PIL import Image
from sklearn import metrics as sk

from pipeline.core import seals
from pipeline.data.shards import facts
from pipeline.data.shards.index import open_shards
from pipeline.jobs.plan import make_plan
from pipeline.learn import calibration
from pipeline.results import bootstrap, collect, datasets, ensembles, quality, ranking
from pipeline.runs.predictions import Predictions, read_predictions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quality")
    finished.make_grid(out, tiny.make_shards(out))
    return out


@pytest.fixture
def plan(folder: Path):
    return make_plan(str(folder / "mine.py"), tiny.make_cluster(folder))


def invented(n: int = 80, classes: int = 3, *, seed: int = 0) -> Predictions:
    """Single labels; scores are rounded so that some are equal."""
    rng = np.random.default_rng(seed)
    targets = np.eye(classes, dtype=np.int8)[rng.integers(0, classes, n)]
    scores = np.clip(targets * 0.25 + rng.random((n, classes)) * 0.75, 0, 1).round(2).astype(np.float32)
    return Predictions([f"{i:03d}" for i in range(n)], tuple("abc"[:classes]), targets, scores)


def test_ranking_is_scikit_learns_mean_over_the_classes_that_have_images() -> None:
    made = invented()
    targets = np.concatenate([made.targets, np.zeros((80, 1), np.int8)], axis=1)  # no image of the fourth class
    scores = np.concatenate([made.scores, made.scores[:, :1]], axis=1)
    found = ranking.ranking(Predictions(made.keys, tuple("abcd"), targets, scores), 0.9)
    assert found is not None
    assert found.auroc == pytest.approx(sk.roc_auc_score(made.targets, made.scores, average="macro"))
    assert found.average_precision == pytest.approx(sk.average_precision_score(made.targets, made.scores))
    wanted = []
    for true, score in zip(made.targets.T, made.scores.T, strict=True):
        best = 0.0
        for threshold in [*score, 2]:
            if (score[true == 0] < threshold).mean() >= 0.9:
                best = max(best, (score[true == 1] >= threshold).mean())
        wanted.append(best)
    assert found.sensitivity == pytest.approx(np.mean(wanted))
    only = Predictions(made.keys, ("a",), np.ones((80, 1), np.int8), made.scores[:, :1])
    assert ranking.ranking(only, 0.9) is None


def test_curves_of_seeds_are_means_at_the_same_rate_or_recall() -> None:
    seeds = [invented(seed=1), invented(seed=2)]
    for number, curve in ranking.mean_curves(seeds, ranking.precision_recall).items():
        wanted = np.zeros(len(ranking.GRID))
        for each in seeds:
            true, score = each.targets[:, number], each.scores[:, number]
            for at, recall in enumerate(ranking.GRID):
                reaching = [
                    t for t in score if score[true == 1][score[true == 1] >= t].size >= recall * true.sum() - 1e-9
                ]
                kept = score >= (max(reaching) if recall else np.inf)
                wanted[at] += true[kept].mean() / 2 if kept.any() else 0.5
        assert curve == pytest.approx(wanted)
    for number, curve in ranking.mean_curves(seeds, ranking.roc).items():
        areas = [sk.roc_auc_score(each.targets[:, number], each.scores[:, number]) for each in seeds]
        assert np.trapezoid(curve, ranking.GRID) == pytest.approx(np.mean(areas), abs=0.005)


def test_a_resampled_auroc_is_scikit_learns_of_the_resampled_images() -> None:
    made = invented(40)
    counts = np.random.default_rng(3).multinomial(40, np.full(40, 1 / 40), size=20)
    counts[0] = np.where(made.targets[:, 0] == 1, 0, counts[0])  # a class without an image
    counts[1] = np.where(made.targets[:, 0] == 1, 1, 0)  # one class alone: no area is defined
    found = bootstrap.resampled_auroc(counts.astype(float), made.targets > 0.5, made.scores)
    assert np.isnan(found[1])
    for row, value in zip(np.delete(counts, 1, axis=0), np.delete(found, 1), strict=True):
        drawn = np.repeat(np.arange(40), row)
        truth, scores = made.targets[drawn], made.scores[drawn]
        areas = [sk.roc_auc_score(truth[:, c], scores[:, c]) for c in range(3) if 0 < truth[:, c].sum() < len(drawn)]
        assert value == pytest.approx(np.mean(areas))


@pytest.mark.parametrize("metric", ["auroc", "accuracy"])
def test_the_images_of_a_patient_are_drawn_together(metric: str) -> None:
    made = invented(60)
    groups = {key: f"patient {int(key) // 6}" for key in made.keys[:48]}  # 8 of six images, then 12 single ones
    found = bootstrap.draw({77: made, 78: made}, "mine", metric, "multi-class", groups)
    units = [[i for i in range(60) if groups.get(made.keys[i]) == name] for name in sorted(set(groups.values()))]
    units += [[i] for i in range(48, 60)]
    draws = np.concatenate(list(bootstrap._weights(found.images))).astype(int)
    scores = []
    for draw in draws:
        images = np.array([i for unit, times in zip(units, draw, strict=True) for _ in range(times) for i in unit])
        truth, score = made.targets[images], made.scores[images]
        if metric == "accuracy":
            scores.append((truth.argmax(axis=1) == score.argmax(axis=1)).mean())
        else:
            areas = [
                sk.roc_auc_score(truth[:, c], score[:, c]) for c in range(3) if 0 < truth[:, c].sum() < len(images)
            ]
            scores.append(np.mean(areas))
    interval = bootstrap.interval(list(found.scores.values()))
    assert interval == pytest.approx(tuple(np.percentile(scores, [2.5, 97.5])))
    alone = bootstrap.draw({77: made}, "mine", metric, "multi-class", {})
    assert bootstrap.interval(list(alone.scores.values())) != interval


def test_a_cells_interval_draws_the_groups_of_its_shards(plan) -> None:
    cell = next(cell for cell in collect.cells(plan) if cell.method == "dino")
    by_image = bootstrap.cell_interval(cell, "auroc")
    keys = cell.predictions[77].keys
    cell.groups.__dict__["by_key"] = dict.fromkeys(keys[:6], "one patient")
    cell.drawn.clear()
    assert bootstrap.cell_interval(cell, "auroc") != by_image


def test_both_networks_are_the_mean_of_their_scores_and_nothing_of_the_papers_is_next_to_it(folder, plan) -> None:
    cells = collect.cells(plan)
    made = ensembles.ensembles(cells)
    assert [(each.row, each.column) for each in made] == [
        ((technique, "CNN + Transformer"), column)
        for technique in ("CASS", "DINO", "Supervised")
        for column in ("10%", "100%")
    ]
    each = made[0]
    pair = [cell for cell in cells if (cell.row[0], cell.column) == ("CASS", "10%")]
    assert [cell.arm for cell in pair] == ["cnn", "transformer"] and each.printed is None
    for seed in (77, 78):
        stored = [read_predictions(cell.runs[seed]["predictions"]) for cell in pair]
        scores = (stored[0].scores + stored[1].scores) / 2
        right = scores.argmax(axis=1) == stored[0].targets.argmax(axis=1)
        assert each.results[seed].metrics["accuracy"] == pytest.approx(right.mean())
    done = command("report", "--grid", "mine.py", "--cluster", "here.toml", cwd=folder)
    assert done.returncode == 0 and "CNN + Transformer: the mean of both networks' scores" in done.stdout
    with open(folder / "reports" / "mine" / "report.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["row"] == "CASS | CNN + Transformer"]
    assert rows[0]["arm"] == "cnn + transformer" and len(rows[0]["runs"].split()) == 4


def test_a_seed_that_only_one_network_has_finished_is_no_seed_of_both(plan) -> None:
    cells = collect.cells(plan)
    del cells[0].results[78]
    first, second, *_ = ensembles.ensembles(cells)
    assert (sorted(first.results), sorted(second.results), first.status) == ([77], [77, 78], "partial")


def test_the_calibration_error_is_of_the_stored_scores_before_and_after_the_stored_temperature(plan) -> None:
    cells = collect.cells(plan)
    (table,) = quality.tables(cells, 0.8)
    assert table.header[5] == "sensitivity at 80 % specificity"
    cell, row = next(
        (c, r) for c, r in zip(cells, table.rows, strict=True) if c.row[0] == "CASS" and c.column == "100%"
    )
    errors = []
    for seed, each in cell.predictions.items():
        logits = np.log(each.scores / (1 - each.scores.astype(float))) / cell.results[seed].temperature
        raised = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        errors.append(
            [calibration.reliability(scores, each.targets, "multi-class").ece for scores in (each.scores, raised)]
        )
    assert [float(text) for text in row[6:8]] == pytest.approx(np.mean(errors, axis=0), abs=6e-5)
    old = next(r for c, r in zip(cells, table.rows, strict=True) if c.method == "dino")
    assert old[7:] == ("not known", "not known")
    fitted = "validation images that gave a temperature: 10%: 8, 100%: 8"
    assert table.notes[-1] == fitted
    for few, seed in zip((3, 5), cell.results, strict=False):
        result = cell.results[seed]
        notes = {**result.notes, "calibration": {"temperature": calibration.LIMITS[0], "images": few}}
        cell.results[seed] = dataclasses.replace(result, notes=notes)
    said = quality.tables(cells, 0.8)[0].notes[-1]
    assert said == f"{fitted[:-1]}3 to 8; 2 runs at a limit (0.05 or 20), where they determine none"


def test_a_specificity_that_is_none_is_refused(folder) -> None:
    done = command("report", "--grid", "mine.py", "--cluster", "here.toml", "--specificity", "90", cwd=folder)
    assert done.returncode == 2 and "--specificity is 90.0; give a fraction between 0 and 1" in done.stderr


def test_the_data_section_says_what_the_manifest_does_and_of_old_ones_that_nobody_looked(folder, plan) -> None:
    (section,) = datasets.sections(plan)
    assert section.table.header == ("", "train", "val", "test")
    assert ("disc", "32", "4", "4") in section.table.rows and ("unlabelled", "10", "0", "0") in section.table.rows
    shards = open_shards(next(folder.glob("shards/*")))
    manifest = {
        **{name: value for name, value in shards.manifest.items() if name not in seals.seals_of(shards.manifest)},
        "groups": 3,
        "without_group": 2,
        "test_sharing_group_with_train": 1,
        "quarantined": [{"file": "a", "reason": "b"}],
        "passed_over": {"hidden": 2, "train images with a twin in test": 5, "val images with a twin in test": 1},
        "twins": {
            "revision": 1,
            "test": {"images": 8, "exact": 1, "near": 0, "mirrored": 2},
            "val": {"images": 8, "exact": 0, "near": 0, "mirrored": 0},
            "other_labels": 1,
            "with_other_labels": [["k1", "k2"]],
        },
    }
    lines = facts.lines(type(shards)(shards.folder, manifest))
    assert lines[1:6] == [
        "1 test image shares a lesion or patient with a training image (it is not known for 2 images)",
        "3 of 8 test images have a twin in train: 1 byte-identical, 2 mirrored",
        "0 of 8 val images have a twin in train",
        "1 pair of twins has different labels: k1 and k2",
        "1 quarantined, 2 passed over, 6 left out because they leak: 5 train images with a twin in test, "
        "1 val images with a twin in test",
    ]
    assert shards.fingerprint in lines[-1] and "split image: each image for itself" in lines[0]
    for name in ("twins", "passed_over", "groups"):
        del manifest[name]
    old = facts.lines(type(shards)(shards.folder, manifest))
    assert any("near duplicates were not looked for" in line for line in old)
    assert any("no lesion or patient is known" in line for line in old)
    assert any("what was passed over is not known" in line for line in old)


def test_shards_that_are_not_here_leave_their_section_and_groups_unknown(folder, plan, tmp_path) -> None:
    plan.cluster = tiny.make_cluster(tmp_path)
    (section,) = datasets.sections(plan)
    assert section.table.rows == [] and "no shards of tiny with fingerprint" in section.table.notes[0]
    assert collect.cells(plan)[0].groups.by_key == {}


def test_the_sheet_of_pairs_is_shown_only_with_images(folder) -> None:
    sheet = next(folder.glob("shards/*")) / facts.SHEET
    made = not sheet.exists()
    if made:
        Image.new("RGB", (8, 8)).save(sheet)
    pages = []
    for flags in ([], ["--with-images"]):
        done = command("report", "--grid", "mine.py", "--cluster", "here.toml", "--html", *flags, cwd=folder)
        assert done.returncode == 0, done.stderr
        pages.append((folder / "reports" / "mine" / "report.html").read_text())
    assert [page.count('class="sheet"') for page in pages] == [0, 1]
    near = f"the pairs nearest the limit of what counts as a twin: {sheet.parent.name}/duplicates.png, in the folder"
    assert all(near in page for page in pages)
    if made:
        sheet.unlink()
