"""What a report says on own data: its order, scores and what they rest on, methods from specs, and its JSON twin."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path
from statistics import fmean, stdev

import finished
import jsonschema
import numpy as np
import pytest
import tiny
from commands import command
from sklearn import metrics as sk

from pipeline.jobs.plan import make_plan
from pipeline.learn import metrics
from pipeline.results import (
    bootstrap,
    collect,
    documents,
    html,
    methods_section,
    per_class,
    report,
    report_json,
    scores,
    summary,
    summed,
    tables,
)
from pipeline.results.content import Report
from pipeline.runs.folder import Run
from pipeline.runs.predictions import Predictions, read_predictions
from pipeline.runs.spec import FinetuneSpec, Method
from pipeline.runs.start_weights import StartWeights
from pipeline.study import experiments, paper
from pipeline.study.setting import DatasetInfo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Own data: two classes of drawn shapes, CASS, DINO and supervised training on them, with two seeds."""
    out = tmp_path_factory.mktemp("content")
    finished.make_grid(out, tiny.make_shards(out))
    return out


@pytest.fixture(scope="module")
def made(folder: Path) -> Report:
    return report.make_report(make_plan(str(folder / "mine.py"), tiny.make_cluster(folder)), folder / "out")


@pytest.fixture(scope="module")
def page(made: Report, folder: Path) -> str:
    return html.page(made, [], folder, with_images=False)


def visible_text(page: str) -> str:
    """The page without its styles, script and tooltips."""
    body = re.sub(r"<(style|script)>.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


# --- On own data it is about that data -------------------------------------------------------------------------------


def test_sections_come_in_the_order_in_which_they_are_read(page: str) -> None:
    wanted = ["found", "scores", "probes", "data", "more", "methods", "limits", "cost", "runs"]
    assert re.findall(r'<section id="(\w+)"', page) == wanted


def test_nothing_of_the_paper_is_on_a_page_of_own_data(made: Report, page: str) -> None:
    headers = [head for table in made.every_table for head in table.header]
    assert headers and not any("paper" in head for head in headers)
    assert not any(" | –" in text for table in made.every_table for row in table.rows for text in row)
    assert made.claims == [] and 'id="claims"' not in page and "The paper&#39;s claims" not in page
    assert not any(re.match(r"Table \d", table.title) for table in made.every_table)
    assert "The paper's claims" not in documents.as_text(made) + documents.as_markdown(made)


def test_sizes_split_metric_and_seeds_are_up_front(made: Report, page: str) -> None:
    front = visible_text(page[: page.index('<section id="scores"')])
    counts = made.data[0].counts
    assert " / ".join(f"{part.images:,}" for part in counts.values()) in front
    assert f"tiny: the metric is balanced accuracy; {made.data[0].lines[0]}." in front
    assert "seeds 2" in front and "runs done 30 of 30" in front
    assert "images have a twin in train" in front and "left out because they leak" in front


def test_every_score_shows_its_interval_and_its_validation_score_without_a_tooltip(made: Report, page: str) -> None:
    text = visible_text(page)
    for cell, ends in zip([*made.cells, *made.ensembles], made.intervals, strict=True):
        assert ends is not None
        score = f"{cell.mean(cell.metric):.4f} ± {cell.deviation(cell.metric):.4f} (2)"
        val = list(cell.val_scores.values())
        shown = f"{score} 95 %: {ends[0]:.4f} to {ends[1]:.4f} validation {fmean(val):.4f} ± {stdev(val):.4f} (2)"
        assert shown in text


def test_the_main_table_has_a_row_for_each_setting_with_all_labels(made: Report) -> None:
    (table,) = made.main
    cells = [cell for cell in [*made.cells, *made.ensembles] if cell.label_fraction == 1]
    assert [row[0] for row in table.rows] == [" · ".join(cell.row) for cell in cells]
    assert "balanced accuracy" in table.title and "100 % of the labels" in table.title
    for row, cell in zip(table.rows, cells, strict=True):
        assert row[3] == "{:.4f} to {:.4f}".format(*bootstrap.cell_interval(cell))
        assert row[4].startswith(f"{fmean(r.metrics['auroc'] for r in cell.results.values()):.4f}")


# --- Validation, the best setting, classes ---------------------------------------------------------------------------


@pytest.mark.parametrize("metric", collect.METRICS)
def test_a_score_of_stored_predictions_is_scikit_learns(made: Report, metric: str) -> None:
    run = next(run for cell in made.cells for run in cell.runs.values())
    for name in ("predictions", "val_predictions"):
        found = read_predictions(run[name])
        for task in ("multi-class", "multi-label"):
            wanted = metrics.score(found.targets.astype(int), found.scores, found.classes, task)[metric]
            assert summed.score(found, metric, task) == pytest.approx(wanted, abs=1e-12)


def test_the_best_setting_is_chosen_on_validation_alone(made: Report) -> None:
    (best,) = made.best
    trained = [cell for cell in made.cells if cell.label_fraction == 1]
    by_hand = {}
    for cell in trained:
        scores = {seed: read_predictions(run["val_predictions"]) for seed, run in cell.runs.items()}
        by_hand[cell.row] = {
            seed: sk.balanced_accuracy_score(p.targets.argmax(axis=1), p.scores.argmax(axis=1))
            for seed, p in scores.items()
        }
    chosen = max(by_hand, key=lambda row: fmean(by_hand[row].values()))
    assert best.cell.row == chosen and best.settings == len(trained) == 6
    assert best.validation == pytest.approx(fmean(by_hand[chosen].values()))
    assert best.test == pytest.approx(best.cell.mean("balanced_accuracy"))
    seed = max(by_hand[chosen], key=lambda seed: by_hand[chosen][seed])
    assert best.run.id == best.cell.runs[seed].id
    (row,) = made.best_table.rows
    assert row[2:4] == (" · ".join(chosen), made.main[0].rows[[r[0] for r in made.main[0].rows].index(row[2])][1])


def test_a_control_is_no_best_setting_whatever_its_score(folder: Path) -> None:
    plan = make_plan(str(folder / "mine.py"), tiny.make_cluster(folder))
    cells = [cell for cell in collect.cells(plan) if cell.spec.pretrain is not None]
    (best,) = scores.best(cells)
    pretrain = dataclasses.replace(best.cell.spec.pretrain, method=Method(name="bn_only", revision=1))
    control = dataclasses.replace(best.cell, spec=dataclasses.replace(best.cell.spec, pretrain=pretrain))
    (other,) = scores.best([control if cell is best.cell else cell for cell in cells])
    assert other.cell is not control and other.settings == best.settings - 1
    assert scores.best([control]) == []


def test_frozen_features_that_are_as_good_as_training_are_found(folder: Path) -> None:
    plan = make_plan(str(folder / "mine.py"), tiny.make_cluster(folder))
    cells = [cell for cell in collect.cells(plan) if cell.method == "supervised"]
    (best,) = scores.best(cells)
    spec = dataclasses.replace(best.cell.spec, probe="linear")
    frozen = dataclasses.replace(best.cell, row=("Frozen random, linear", "ResNet"), spec=spec)
    test = fmean(best.cell.values(best.cell.metric))
    said = f"Frozen random, linear · ResNet has {test:.4f} on test; the best trained setting, "
    found = summary.summary(plan, [*cells, frozen], [], []).found
    assert [line for line in found if f"are as good as training, or better. {said}" in line]
    assert not [line for line in summary.summary(plan, cells, [], []).found if "frozen" in line]


def test_no_table_of_times_is_there_without_cass_and_dino(folder: Path) -> None:
    plan = make_plan(str(folder / "mine.py"), tiny.make_cluster(folder))
    cells = collect.cells(plan)
    for cell in cells:
        cell.experiment = "main"
    supervised = [cell for cell in cells if cell.method == "supervised"]
    assert "time of pretraining" in [table.caption for table in tables.tables(plan, cells)]
    assert "time of pretraining" not in [table.caption for table in tables.tables(plan, supervised)]


def test_scores_by_class_are_scikit_learns_on_the_same_draws(made: Report) -> None:
    cell = made.best[0].cell
    seeds: list[Predictions] = list(cell.predictions.values())
    images = bootstrap.test_images("tiny", seeds[0].keys, {})
    counts = np.concatenate(list(bootstrap._weights(images)))[:, images.unit]
    truth = seeds[0].targets.argmax(axis=1)
    for number, found in enumerate(made.best[0].classes):
        assert found.name == seeds[0].classes[number] and found.images == (truth == number).sum()
        for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            said = [each.scores.argmax(axis=1) for each in seeds]
            values = [score(truth == number, each == number, zero_division=0) for each in said]
            assert found.values[name] == pytest.approx(values)
            draws = [
                np.mean([score(truth == number, e == number, sample_weight=row, zero_division=0) for e in said])
                for row in counts[:40]
            ]
            ours = np.mean([bootstrap_of(made, name, number, seed)[:40] for seed in range(len(seeds))], axis=0)
            assert ours == pytest.approx(draws, abs=1e-6)
            assert found.intervals[name][0] <= found.intervals[name][1]
        areas = [sk.roc_auc_score(truth == number, each.scores[:, number]) for each in seeds]
        assert found.values["auroc"] == pytest.approx(areas)
        assert found.intervals["auroc"][0] <= fmean(areas) <= found.intervals["auroc"][1]


def test_draws_without_an_image_of_a_rare_class_say_nothing_of_it() -> None:
    """Else a network that is always right would have a recall of 0 to 1 where few test images show the class."""
    truth = np.eye(3, dtype=np.int8)[[0, 0, *[1] * 48, *[2] * 50]]
    always_right = Predictions(list(map(str, range(100))), ("rare", "b", "c"), truth, 0.1 + 0.8 * truth)
    images = bootstrap.test_images("tiny", always_right.keys, {})
    for task in ("multi-class", "multi-label"):
        for classes in per_class._counted([always_right], task, images).values():
            assert [bootstrap.interval(seeds) for seeds in classes] == [(1.0, 1.0)] * len(classes)
    (counts,) = per_class._counted([always_right], "multi-class", images)["recall"][0]
    assert 0 < np.isnan(counts).sum() < len(counts)


def test_a_class_without_test_images_has_no_scores(made: Report) -> None:
    cell = dataclasses.replace(made.best[0].cell, results=dict(made.best[0].cell.results))
    for seed, result in cell.results.items():
        first, *others = result.metrics["per_class"].items()
        none = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0, "auroc": None}
        found = {**result.metrics, "per_class": {first[0]: none, **dict(others)}}
        cell.results[seed] = dataclasses.replace(result, metrics=found)
    lacking, *others = per_class.of_cell(cell)
    assert lacking.images == 0 and not any(lacking.values.values()) and not any(lacking.intervals.values())
    assert {scores._scored(lacking, name) for name in per_class.SCORES} == {"–"}
    assert all(all(each.values.values()) for each in others)


def bootstrap_of(made: Report, name: str, number: int, seed: int) -> np.ndarray:
    return per_class._drawn(made.best[0].cell)[name][number][seed]


# --- Where the grid repeats the paper --------------------------------------------------------------------------------


def cells_of(specs_of: str, info: DatasetInfo, preset: str, folder: Path) -> list[collect.Cell]:
    from pipeline.jobs.plan import Plan, PlannedRun
    from pipeline.runs.cluster import load_cluster
    from pipeline.runs.identity import run_id
    from pipeline.study.grid import load_grid

    plan = Plan(specs_of, load_cluster("local"), paper.preset(preset), [info], [])
    loaded = load_grid(specs_of)
    plan.entries, _ = loaded.runs([info], [77], plan.preset, {})
    for entry in plan.entries:
        name = run_id(entry.spec)
        plan.runs[name] = PlannedRun(Run(folder / name), entry.spec, "missing", None)
    return collect.cells(plan)


@pytest.mark.parametrize(
    ("grid", "changes", "preset", "repeats"),
    [
        ("main", {}, "paper", True),
        ("main", {}, "notebook", True),
        ("main", {"grouped": True}, "paper", False),
        ("main", {"stand_in": True}, "paper", False),
        ("main", {}, "sound", False),
        ("small", {}, "paper", False),
    ],
)
def test_printed_values_are_next_to_runs_of_the_papers_own_setting_alone(
    tmp_path: Path, grid: str, changes: dict[str, bool], preset: str, repeats: bool
) -> None:
    ref = tiny.DatasetRef(name="brain_mri", fingerprint="0" * 16)
    info = dataclasses.replace(DatasetInfo(ref, (0.01, 0.1, 1.0), "f1_micro"), **changes)
    found = cells_of(grid, info, preset, tmp_path)
    assert {cell.printed is not None for cell in found} == {repeats}


# --- Methods ---------------------------------------------------------------------------------------------------------


def test_the_methods_section_says_what_the_specs_say(made: Report) -> None:
    text = {each.heading: each.text for each in made.methods}
    assert list(text) == [
        *("Data", "Labels", "Augmentation", "Pretraining", "Fine-tuning", "Scores", "Statistics"),
        "Software and hardware",
    ]
    spec = next(cell.spec for cell in made.cells if cell.spec.pretrain)
    counts = made.data[0].counts
    assert f"{counts['train'].images:,} train, {counts['val'].images:,} val and" in text["Data"]
    assert "32 × 32 pixels" in text["Data"] and made.data[0].ref.fingerprint in text["Data"]
    assert "10 % and 100 % of the labelled training images" in text["Labels"]
    assert "saw all validation labels at every fraction" in text["Labels"]
    assert f"batches of {spec.pretrain.batch_size}" in text["Pretraining"]
    assert "CASS (two networks saw" in text["Pretraining"] and "DINO (" in text["Pretraining"]
    for arm in spec.pretrain.arms:
        assert f"{arm.name} arm {arm.backbone} from random weights, Adam (rate {arm.optim.lr:g}" in text["Pretraining"]
    assert f"for at most {spec.epochs} epochs" in text["Fine-tuning"]
    assert f"until {spec.patience} epochs without a new lowest validation loss" in text["Fine-tuning"]
    assert "2 seeds (77, 78)" in text["Statistics"] and "1,000 resamples" in text["Statistics"]
    assert "cpu in float32" in text["Software and hardware"]
    for name in ("nan", "None", "{", "}"):
        assert name not in " ".join(text.values())


def test_a_change_of_a_spec_is_a_change_of_the_methods(folder: Path) -> None:
    plan = make_plan(str(folder / "mine.py"), tiny.make_cluster(folder))
    for planned in plan.runs.values():
        if isinstance(planned.spec, FinetuneSpec):
            loss = dataclasses.replace(planned.spec.loss, class_weights="inverse", gamma=1.5)
            planned.spec = dataclasses.replace(planned.spec, loss=loss, val_fraction=0.5, batch_size=24)
    text = {each.heading: each.text for each in methods_section.paragraphs(plan, [], [], compared=False)}
    assert "batches of 24" in text["Fine-tuning"] and "γ 1.5; rare classes weighing more" in text["Fine-tuning"]
    assert "the same part of the validation labels" in text["Labels"]
    assert "Scores" not in text and "Statistics" not in text


def test_training_from_weights_of_ones_own_has_words(folder: Path) -> None:
    from pipeline.results import training_text

    specs = [one.spec for one in make_plan(str(folder / "mine.py"), tiny.make_cluster(folder)).runs.values()]
    tuned = next(spec for spec in specs if isinstance(spec, FinetuneSpec) and spec.pretrain is None)
    mean, std = tuned.augment.mean, tuned.augment.std
    given = StartWeights(name="mine", sha256="0" * 64, licence="CC BY 4.0", mean=mean, std=std)
    said = training_text.finetuning([dataclasses.replace(tuned, weights="given", given=given), tuned])
    assert said.count("All weights of") == 1 and "the same from the weights mine and" in said


def test_every_method_and_grid_of_the_package_has_words() -> None:
    from pipeline.results import training_text
    from pipeline.runs.methods import METHOD_INFO

    assert training_text.DONE.keys() == METHOD_INFO.keys()
    info = DatasetInfo(tiny.DatasetRef(name="autoimmune", fingerprint="0" * 16), (1.0,), "f1_micro")
    for preset in paper.PRESETS.values():
        specs = [e.spec for e in experiments.entries_of(*experiments.EXPERIMENTS)([info], (77,), preset)]
        parts = [spec.pretrain for spec in specs if spec.pretrain]
        said = training_text.pretraining(parts) + training_text.finetuning(specs) + training_text.augmentation(specs)
        assert "SGD (rate" in said and "solarisation" in training_text.augmentation(parts) and "?" not in said


# --- The JSON twin ---------------------------------------------------------------------------------------------------


def closed(schema: object) -> object:
    """The schema without room for keys that it does not describe."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    out = {name: closed(value) for name, value in schema.items()}
    return {**out, "additionalProperties": False} if isinstance(out.get("properties"), dict) else out


def check(value: object) -> None:
    schema = json.loads(report_json.SCHEMA.read_text())
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    assert schema["properties"]["schema_version"]["const"] == report_json.SCHEMA_VERSION
    validator(closed(schema)).validate(value)


def test_the_json_fits_its_schema_and_holds_the_runs_own_numbers(made: Report) -> None:
    check(value := json.loads(report_json.text(made)))
    assert report_json.text(made) == report_json.text(made)
    assert value["grid"] == "mine" and value["seeds"] == [77, 78] and value["claims"] == []
    assert len(value["results"]) == len(made.cells) + len(made.ensembles)
    for found, cell in zip(value["results"], made.cells, strict=False):
        scores = [run.result().metrics["balanced_accuracy"] for run in cell.runs.values()]
        assert list(found["test"]["by_seed"].values()) == scores and found["test"]["mean"] == fmean(scores)
        assert found["other_test_metrics"]["auroc"]["mean"] == cell.mean("auroc") and found["paper"] is None
        assert found["validation"]["mean"] == fmean(cell.val_scores.values())
    assert value["best"][0]["run"] == made.best[0].run.id
    assert [table["title"] for table in value["tables"]] == [table.title for table in made.every_table]


# --- The command -----------------------------------------------------------------------------------------------------


def test_a_single_run_has_the_same_report(folder: Path, made: Report) -> None:
    run = made.best[0].run
    flags = ("--run", run.id, "--cluster", "here.toml")
    done = command("report", *flags, cwd=folder)
    assert done.returncode == 0, done.stderr
    check(value := json.loads((folder / "reports" / run.id / "report.json").read_text()))
    assert value["grid"] == run.id and value["comparisons"] == [] and value["claims"] == []
    (found,) = value["results"]
    assert found["runs"] == [run.id] and found["test"]["mean"] == run.result().metrics["balanced_accuracy"]
    assert value["runs"] == {"done": 2 if made.best[0].cell.spec.pretrain else 1}
    assert "With 1 seed no difference" in (folder / "reports" / run.id / "report.md").read_text()


def test_a_pretraining_run_alone_shows_its_probes(folder: Path) -> None:
    run = next(path.parent for path in folder.glob("runs/tiny-cass-s77-*/spec.json"))
    from pipeline.results.single import plan_of_run

    found = report.make_report(plan_of_run(Run(run), tiny.make_cluster(folder)), folder / "out")
    check(json.loads(report_json.text(found)))
    assert found.main == [] and len(found.probes) == 1 and found.best_table is None
    assert found.summary.asked == ["What CASS makes of images of 32 × 32 pixels without labels, with 1 seed."]
    assert 'id="probes"' in html.page(found, [], folder, with_images=False)
    without = dataclasses.replace(tiny.make_cluster(folder), shards=str(folder / "nowhere"))
    assert "no shards of tiny" in report.make_report(plan_of_run(Run(run), without), folder / "out").data[0].lines[0]


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ((), "give --grid for a grid's report, or --run for that of one run"),
        (("--grid", "mine.py", "--run", "tiny"), "give --grid for a grid's report, or --run for that of one run"),
        (("--run", "tiny", "--seeds", "2"), "--seeds is of a grid; leave it out with --run"),
        (("--run", "nothing"), "there is no run 'nothing'"),
    ],
)
def test_what_is_meant_must_be_clear(folder: Path, flags: tuple[str, ...], error: str) -> None:
    done = command("report", *flags, "--cluster", "here.toml", cwd=folder)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {error}")


# --- In a browser ----------------------------------------------------------------------------------------------------

ASKED = """<script>
const frame = document.createElement("iframe"); frame.style.cssText = "width:390px;height:3000px;border:0";
frame.onload = () => { const page = frame.contentDocument, wide = [...page.querySelectorAll(".wide")];
  const hidden = wide.filter(part => part.scrollWidth > part.clientWidth + 1);
  const unsaid = hidden.filter(part => getComputedStyle(part.previousElementSibling).display === "none").length;
  const out = [...page.querySelectorAll("td, p, li, th, summary")].filter(part =>
    part.getClientRects().length && part.getBoundingClientRect().right > 391).length;
  const phone = [page.documentElement.scrollWidth, unsaid, out, wide.length];
  const front = page.querySelector("#found .wide"), named = front.querySelectorAll("tbody tr:first-child .text");
  frame.style.width = "1280px";
  named[0].textContent = "brain_mri-grouped"; named[2].textContent = "CASS + variance–covariance · ResNet-10-T";
  document.title = "PHONE " + [...phone, front.scrollWidth - front.clientWidth].join(" "); };
frame.srcdoc = PAGE; document.body.append(frame);
</script>"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed; it would lay out the page")
def test_nothing_is_out_of_sight_without_a_sign_on_a_phone_and_the_first_table_fits_a_desktop(
    page: str, tmp_path: Path
) -> None:
    text = json.dumps(page).replace("</", "<\\/")
    (tmp_path / "page.html").write_text("<!doctype html><body>" + ASKED.replace("PAGE", text))
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run".split()
    flags += [f"--user-data-dir={tmp_path / 'user'}", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        ["chromium", *flags, str(tmp_path / "page.html")], capture_output=True, text=True, timeout=120
    )
    width, unsaid, out, wide, cut = map(int, re.search(r"<title>PHONE ([\d ]+)</title>", done.stdout)[1].split())
    assert width <= 390 and unsaid == out == 0 and wide > 5
    assert cut <= 1, "the first table fits a small desktop"
