"""A report has shards before and after they grew side by side, each by its fingerprint."""

from __future__ import annotations

from pathlib import Path

import finished
import numpy as np
import pytest
import tiny
from PIL import Image

from pipeline.core.console import silent
from pipeline.data.datasets.toy import draw
from pipeline.data.layouts import UserDataset
from pipeline.data.shards import facts
from pipeline.data.shards.extend import extended_plan
from pipeline.data.shards.index import Shards
from pipeline.data.shards.write import write_shards
from pipeline.jobs.plan import Plan, make_plan
from pipeline.results import collect, growth
from pipeline.study import paper
from pipeline.study.setting import Chosen, chosen_shards


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Shards, Shards]:
    """Shards of forty images, and those with ten more; two seeds of supervised runs on both."""
    out = tmp_path_factory.mktemp("growth")
    old = tiny.make_shards(out, each=20, unlabelled=0)
    for number in range(10):
        Image.fromarray(draw("disc", np.random.default_rng([9, number]))).save(out / "raw" / "disc" / f"n{number}.png")
    plan = extended_plan(UserDataset("tiny", "folder"), out / "raw", old, workers=1, progress=silent)
    new = write_shards(plan, out / "shards", workers=1, max_bad=0, strict=True, progress=silent)
    for shards in (old, new):
        for seed in paper.SEEDS[:2]:
            for spec in finished.specs(tiny.ref(shards), seed):
                if spec.pretrain is None and spec.label_fraction == 1:
                    finished.finish(spec, tiny.make_cluster(out), shards)
    (out / "mine.py").write_text(finished.GRID.format(name="tiny"))
    return out, old, new


def plan_of(folder: Path, *datasets: str) -> Plan:
    return make_plan(str(folder / "mine.py"), tiny.make_cluster(folder), datasets=datasets or None)


def test_shards_are_named_by_the_first_digits_of_their_fingerprint() -> None:
    assert chosen_shards(["a@1a2b", "a:grouped"], "grouped") == [
        Chosen("a", "grouped", "1a2b", several_versions=True),
        Chosen("a", "grouped", several_versions=True),
    ]
    assert chosen_shards(["a:image@1a2b3c"], "grouped") == [Chosen("a", "image", "1a2b3c")]
    with pytest.raises(ValueError, match="a@xyz: 'xyz' is not how a fingerprint begins; give 4 to 16"):
        chosen_shards(["a@xyz"], "image")


def test_the_newest_shards_are_used_unless_a_fingerprint_says_otherwise(grown: tuple[Path, Shards, Shards]) -> None:
    folder, old, new = grown
    assert [info.ref for info in plan_of(folder).datasets] == [tiny.ref(new)]
    (chosen,) = plan_of(folder, f"tiny@{old.fingerprint[:6]}").datasets
    assert chosen.ref == tiny.ref(old) and chosen.title == "tiny"
    assert len(plan_of(folder, "tiny", f"tiny@{new.fingerprint[:6]}").datasets) == 1, "one dataset, named twice"
    with pytest.raises(ValueError, match="whose fingerprint begins with 0000; omit @0000"):
        plan_of(folder, "tiny@0000")


def test_both_scores_are_side_by_side_and_the_test_images_are_said_to_be_the_same(
    grown: tuple[Path, Shards, Shards],
) -> None:
    folder, old, new = grown
    assert facts.part_hash(old, "test") == facts.part_hash(new, "test")
    assert facts.part_hash(old, "train") != facts.part_hash(new, "train")
    plan = plan_of(folder, f"tiny@{old.fingerprint[:8]}", "tiny")
    cells = collect.cells(plan)
    titles = [f"tiny-{shards.fingerprint[:8]}" for shards in (old, new)]
    assert {cell.dataset for cell in cells} == set(titles)
    (table,) = growth.tables(plan, cells)
    number = next(n for n, row in enumerate(table.rows) if row[0].startswith("Supervised") and "–" not in row)
    row = table.rows[number]
    shown = [table.cells[number, column] for column in (2, 3)]
    assert [cell.dataset for cell in shown] == titles
    one, two = ([cell.scores(cell.metric)[seed] for seed in (77, 78)] for cell in shown)
    assert float(row[2].split(" ± ")[0]) == pytest.approx(np.mean(one), abs=6e-5)
    assert float(row[4].split(" ± ")[0]) == pytest.approx(np.subtract(two, one).mean(), abs=6e-5)
    assert table.notes[:2] == (
        "training images: 32 and 42",
        "both are tested on the same 4 images with the same labels",
    )
    assert growth.tables(plan_of(folder), cells) == []


def test_the_data_section_says_what_was_extended(grown: tuple[Path, Shards, Shards]) -> None:
    _, old, new = grown
    part = facts.part_hash(old, "test")
    wanted = f"extends {old.fingerprint[:8]} with its 40 images; val and test are those of {old.fingerprint[:8]} "
    assert wanted + f"(test part {part})" in facts.lines(new)
    assert not any("extends" in line for line in facts.lines(old))
    assert set(facts.leaks(new)) < set(facts.lines(new)) and "left out because they leak" in facts.leaks(new)[2]
