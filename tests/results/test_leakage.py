"""A grid that has both splits of a dataset tells them apart everywhere, and says what leakage is worth."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import finished
import numpy as np
import pytest
import tiny
from commands import command

from pipeline.data.layouts import UserDataset
from pipeline.jobs.plan import make_plan
from pipeline.results import collect, leakage
from pipeline.study import paper
from pipeline.study.setting import Chosen, chosen_shards

BOTH = ["tiny:image", "tiny:grouped"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of supervised runs on both splits."""
    out = tmp_path_factory.mktemp("leakage")
    by_image = tiny.make_shards(out, each=20, unlabelled=0)
    grouped = tiny.shard(UserDataset("tiny", "folder"), out / "raw", out / "shards", split="grouped")
    site = tiny.make_cluster(out)
    for shards in (by_image, grouped):
        for seed in paper.SEEDS[:2]:
            for spec in finished.specs(tiny.ref(shards), seed):
                if spec.pretrain is None:
                    finished.finish(spec, site, shards)
    (out / "mine.py").write_text(finished.GRID.format(name="tiny"))
    (out / "here.toml").write_text(f'executor = "local"\nshards = "{out / "shards"}"\ndevice = "cpu"\n')
    return out


def test_a_split_is_named_after_a_colon_and_the_presets_is_the_usual_one() -> None:
    assert chosen_shards(["a", "b:grouped"], "image") == [Chosen("a", "image"), Chosen("b", "grouped")]
    both = [Chosen("a", split, several_splits=True) for split in ("image", "grouped")]
    assert chosen_shards(["a", "a:image", "a:grouped"], "image") == both
    with pytest.raises(ValueError, match="a:patient: there is no split 'patient'; known: image, grouped"):
        chosen_shards(["a:patient"], "image")


def test_the_table_is_the_difference_of_runs_of_the_same_seed(folder: Path) -> None:
    plan = make_plan(str(folder / "mine.py"), tiny.make_cluster(folder), datasets=BOTH)
    cells = collect.cells(plan)
    assert {cell.dataset for cell in cells} == {"tiny-image", "tiny-grouped"}
    (table,) = leakage.tables(plan, cells)
    assert len(table.rows) == 3 * 2 * 2 and table.title.startswith("tiny: what leakage is worth")
    number, row = next((n, r) for n, r in enumerate(table.rows) if r[0] == "Supervised · test_vit (transformer)")
    one, other = table.cells[number, 2], table.cells[number, 3]
    assert (one.dataset, other.dataset) == ("tiny-image", "tiny-grouped")
    scores = [[cell.scores(cell.metric)[seed] for seed in (77, 78)] for cell in (one, other)]
    mean, deviation = np.subtract(*scores).mean(), np.subtract(*scores).std(ddof=1)
    assert float(row[4].split(" ± ")[0]) == pytest.approx(mean, abs=6e-5)
    assert float(row[4].split(" ± ")[1].split()[0]) == pytest.approx(deviation, abs=6e-5) and row[4].endswith("(2)")
    assert next(r for r in table.rows if r[0].startswith("CASS"))[4] == "–"
    for split in ("image", "grouped"):  # what is counted, not what a split should do
        (note,) = [note for note in table.notes if note.startswith(f"split {split}: no lesion or patient is known")]
        assert "of 4 test images have a twin in train" in note


def test_f1_over_fewer_classes_in_one_split_is_said_next_to_the_difference(folder: Path) -> None:
    """A class that one test part lacks costs F1 (macro) its share there, which is no leakage."""
    plan = make_plan(str(folder / "mine.py"), tiny.make_cluster(folder), datasets=BOTH)
    cells = collect.cells(plan)
    assert not any("at most" in note for note in leakage.tables(plan, cells)[0].notes)
    for cell in cells:
        cell.metric = "f1_macro"
        for seed, result in cell.results.items():
            lacking = {name: {**each, "support": 0} for name, each in list(result.metrics["per_class"].items())[:1]}
            by_class = result.metrics["per_class"] | (lacking if cell.dataset == "tiny-grouped" else {})
            cell.results[seed] = dataclasses.replace(result, metrics={**result.metrics, "per_class": by_class})
    (table,) = leakage.tables(plan, cells)
    assert table.notes[-1] == (
        "F1 (macro) counts classes without test images as 0: at most 0.5000 on tiny-grouped "
        "(1 of 2 classes have test images)"
    )


def test_one_split_alone_has_its_plain_name_and_no_such_table(folder: Path) -> None:
    plan = make_plan(str(folder / "mine.py"), tiny.make_cluster(folder), datasets=["tiny:grouped"])
    cells = collect.cells(plan)
    assert {cell.dataset for cell in cells} == {"tiny"} and leakage.tables(plan, cells) == []
    assert plan.datasets[0].ref != make_plan(str(folder / "mine.py"), tiny.make_cluster(folder)).datasets[0].ref


def test_one_report_holds_both_splits_with_their_data_and_figures(folder: Path) -> None:
    flags = ["--grid", "mine.py", "--cluster", "here.toml", "--datasets", ",".join(BOTH)]
    done = command("report", *flags, "--html", cwd=folder)
    assert done.returncode == 0, done.stderr
    for text in (
        "tiny-image: techniques and label fractions",
        "tiny-grouped: techniques and label fractions",
        "tiny: what leakage is worth, test balanced accuracy on both splits",
        "tiny-grouped: data, images by class and part",
        "split grouped: patients, lesions and twins stay in one part",
    ):
        assert text in done.stdout
    out = folder / "reports" / "mine"
    listed = json.loads((out / "figures" / "figures.json").read_text())["figures"]
    names = {entry["name"] for entry in listed}
    assert {"roc-pr-tiny-image-test_vit", "roc-pr-tiny-grouped-test_vit", "reliability-tiny-grouped-test_vit"} <= names
    with open(out / "report.csv", newline="") as file:
        assert {row["dataset"] for row in csv.DictReader(file)} == {"tiny-image", "tiny-grouped"}
    assert (out / "report.html").read_text().count("what leakage is worth") == 1
