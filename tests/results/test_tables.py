"""Tables: means and deviations by hand, the paper's values next to them, marks and every format."""

from __future__ import annotations

import csv
import dataclasses
import io
import re

import pytest
from scored import score_cell
from test_differences import make_cells

from pipeline.data.datasets import DATASETS
from pipeline.jobs.plan import Plan, PlannedRun, shown_name
from pipeline.results import collect, differences, formats, tables, texts
from pipeline.results.differences import difference
from pipeline.results.figures import series
from pipeline.runs.cluster import load_cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.result import Result
from pipeline.runs.spec import DatasetRef, FinetuneSpec
from pipeline.study import experiments, paper
from pipeline.study.grid import load_grid
from pipeline.study.setting import DatasetInfo


def result(value: float, *, device: str = "a GPU") -> Result:
    metrics = {name: value for name in collect.METRICS} | {"majority": {"balanced_accuracy": 0.125}}
    return Result(
        metrics=metrics,
        seconds=1.0,
        images_per_second=1.0,
        epochs=1,
        best_epoch=0,
        device=device,
        precision="float32",
        threads=1,
        code="c",
        versions={},
    )


@pytest.fixture
def plan(tmp_path):
    """The main grid on ISIC with two seeds, CASS ViT-B/16 with all labels finished."""
    plugin = DATASETS.find("isic").DATASET
    dataset = DatasetInfo(DatasetRef(name="isic", fingerprint="0" * 16), plugin.label_fractions, plugin.metric)
    preset = paper.preset("paper")
    entries = load_grid("main").entries([dataset], [77, 78], preset)
    wanted = [entry.spec for entry in entries]
    out = Plan("main", load_cluster("local"), preset, [dataset], entries)
    for spec in wanted:
        run = Run(tmp_path / run_id(spec))
        out.runs[run.id] = PlannedRun(run=run, spec=spec, state="missing", parent=None)
    for spec, value in zip([spec for spec in wanted if is_chosen(spec)], (0.5, 0.6), strict=True):
        planned = out.runs[run_id(spec)]
        planned.run.announce(spec)
        planned.run.finish(result(value))
        planned.state = "done"
    return out


def is_chosen(spec: FinetuneSpec) -> bool:
    return (
        spec.pretrain is not None
        and spec.pretrain.method.name == "cass"
        and spec.arm == "transformer"
        and spec.label_fraction == 1.0
    )


def chosen(cells: list[collect.Cell]) -> collect.Cell:
    return next(cell for cell in cells if (cell.row, cell.column) == (("CASS", "ViT B/16"), "100%"))


def test_a_cell_is_the_mean_and_sample_deviation_over_seeds_next_to_the_papers_value(plan):
    cells = collect.cells(plan)
    assert len(cells) == 2 * 3 * 3
    cell = chosen(cells)
    assert texts.our_score(cell) == "0.5500 ± 0.0707 (2)"
    assert texts.printed_score(cell) == "0.5819 ± 0.0015"
    assert cell.metric == "balanced_accuracy"
    assert cell.status == "complete" and sorted(cell.runs) == [77, 78]
    text = formats.as_text(tables.tables(plan, cells))
    assert "Table 6 · isic: techniques and label fractions, test balanced accuracy" in text
    assert "0.5500 ± 0.0707 (2)" in text and "– (0 of 2)" in text and "0.3976" not in text
    assert "scores 0.1250" in text


def test_one_seed_has_no_deviation_and_says_how_many_are_missing(plan):
    cell = chosen(collect.cells(plan))
    del cell.results[78]
    assert texts.our_score(cell) == "0.5000 (1 of 2)" and cell.status == "partial"


def test_a_cell_that_mixes_devices_is_marked_and_explained(plan):
    cell = chosen(collect.cells(plan))
    cell.results[78] = dataclasses.replace(cell.results[78], device="another GPU")
    assert texts.our_score(cell).endswith("(2)*")
    (table,) = [table for table in tables.tables(plan, [cell]) if table.number == 6]
    assert any("different devices" in note for note in table.notes)


@pytest.mark.parametrize("where", ["run", "parent"])
def test_a_cell_of_a_run_that_changed_its_device_is_marked(plan, where):
    cell = chosen(collect.cells(plan))
    devices = {"devices": [{"device": "A", "step": 0}, {"device": "B", "step": 9}]}
    for seed, result in cell.results.items():
        notes = devices if where == "run" else {"parent": {"device": "B", "precision": "float32", **devices}}
        cell.results[seed] = dataclasses.replace(result, notes={**result.notes, **notes})
    assert texts.our_score(cell).endswith("(2)*")


def test_two_recipes_never_share_a_cell(plan):
    spec = next(spec for spec in plan.wanted if is_chosen(spec))
    other = dataclasses.replace(spec, epochs=7)
    plan.entries = experiments.plain_entries([*plan.wanted, other])
    run = Run(plan.runs[run_id(spec)].run.folder)
    plan.runs[run_id(other)] = PlannedRun(run=run, spec=other, state="missing", parent=None)
    cells = [c for c in collect.cells(plan) if c.row[0] == "CASS" and "(transformer)" in c.row[1]]
    assert sorted(cell.wanted for cell in cells if cell.column == "100%") == [1, 2]
    assert len({cell.row for cell in cells}) == 2


def test_where_a_preset_shows_another_metric_no_printed_value_is_next_to_it(plan):
    plan.preset = paper.preset("sound")
    cell = chosen(collect.cells(plan))
    assert cell.metric == "f1_macro"
    assert cell.printed is None


def test_csv_holds_every_metric_with_its_raw_values(plan):
    rows = list(csv.DictReader(io.StringIO(formats.as_csv([chosen(collect.cells(plan))], [(0.4, 0.7)]))))
    assert {row["metric"] for row in rows} == set(collect.METRICS)
    shown = next(row for row in rows if row["in_table"] == "1")
    assert sorted(shown["values"].split()) == ["0.5", "0.6"]
    assert (shown["n"], shown["wanted"], shown["table"], shown["paper_value"]) == ("2", "2", "6", "0.5819")
    assert (shown["low"], shown["high"], shown["status"]) == ("0.4", "0.7", "complete")
    assert len(shown["runs"].split()) == 2


def test_latex_and_markdown_are_well_formed(plan):
    made = tables.tables(plan, collect.cells(plan))
    latex = formats.as_latex(made)
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == len(made) == 3
    for table, block in zip(made, latex.split(r"\begin{table}")[1:], strict=True):
        body = block.split(r"\toprule")[1].split(r"\bottomrule")[0].replace(r"\&", "")
        lines = [line for line in body.splitlines() if line.strip().endswith(r"\\")]
        assert {line.count("&") for line in lines} == {len(table.header) - 1}
        assert f"{{{'l' * table.labels}{'c' * (len(table.header) - table.labels)}}}" in block
    assert "%" not in latex.replace(r"\%", "") and "−" not in latex
    for table in made:
        lines = [line for line in formats.as_markdown([table]).splitlines() if line.startswith("|")]
        assert {line.replace(r"\|", "").count("|") for line in lines} == {len(table.header) + 1}


def test_a_table_knows_the_cell_of_each_of_its_scores(plan):
    table = next(table for table in tables.tables(plan, collect.cells(plan)) if table.number == 6)
    (row,) = [number for number, texts in enumerate(table.rows) if texts[:2] == ("CASS", "ViT B/16")]
    cell = table.cells[row, table.header.index("100% ours")]
    assert texts.our_score(cell) == table.rows[row][table.header.index("100% ours")]
    assert {run.id for run in cell.runs.values()} == {run_id(spec) for spec in plan.wanted if is_chosen(spec)}


def test_tables_warn_of_scores_on_a_stand_in(plan):
    assert "STAND-IN" not in formats.as_text(tables.tables(plan, collect.cells(plan)))
    plan.datasets = [dataclasses.replace(dataset, stand_in=True) for dataset in plan.datasets]
    assert "STAND-IN" in formats.as_text(tables.tables(plan, collect.cells(plan)))


def test_tables_say_what_their_scores_do_not_cover(plan):
    gap = "classes without an image in test: DF; scores on test are over 7 of 8 classes"
    assert gap not in formats.as_text(tables.tables(plan, collect.cells(plan)))
    plan.datasets = [dataclasses.replace(dataset, gaps=(gap,)) for dataset in plan.datasets]
    made = tables.tables(plan, collect.cells(plan))
    assert [table.number for table in made if gap in table.notes] == [6]
    for text in (formats.as_text(made), formats.as_markdown(made), formats.as_latex(made)):
        assert "over 7 of 8 classes" in text


def test_networks_have_one_name_and_the_tables_say_which_they_are(plan):
    cells = collect.cells(plan)
    (table,) = [table for table in tables.tables(plan, cells) if table.number == 6]
    assert "networks: ResNet-50 is timm's resnet50.a1_in1k, ViT B/16 is timm's vit_base_patch16_384" in str(table.notes)
    assert [group.title for group in series.groups(cells)] == ["ResNet-50", "ViT B/16"]
    assert [group.name for group in series.groups(cells)] == ["isic-resnet50", "isic-vit_base_patch16_384"]


def test_runs_of_dino_are_shown_with_their_network_and_keep_their_ids(plan):
    parents = {run_id(spec.pretrain): spec.pretrain for spec in plan.wanted if spec.pretrain}
    shown = [shown_name(name, parent) for name, parent in parents.items() if parent.seed == 77]
    assert {re.sub("-[0-9a-f]{12}", "", name) for name in shown} == {
        "isic-cass-s77",
        "isic-dino-s77 (resnet50)",
        "isic-dino-s77 (vit_base_patch16_384)",
    }


def test_a_difference_of_nothing_has_no_sign():
    assert [texts.signed(value, ".1%") for value in (-0.0004, 0.0, 0.0004, -0.0006)] == [
        "0.0%",
        "0.0%",
        "0.0%",
        "-0.1%",
    ]
    assert texts.signed(0.25, ".4f") == "+0.2500" and texts.signed(float("nan"), ".4f") == "nan"


def test_table_1_repeats_the_means_next_to_the_papers(plan):
    table = next(table for table in tables.tables(plan, collect.cells(plan)) if table.number == 1)
    row = next(row for row in table.rows if row[:2] == ("isic", "CASS"))
    assert row[table.header.index("100% transformer")] == "0.5500 | 0.5819"
    assert row[table.header.index("1% cnn")] == "– | 0.3617"


def test_table_2_sums_the_two_networks_of_dino_and_says_what_cass_saves(plan):
    seconds = {("dino", "cnn"): 3000.0, ("dino", "transformer"): 5000.0, ("cass", ""): 2000.0}
    for spec in plan.wanted:
        if spec.pretrain:
            parent = spec.pretrain
            name = run_id(parent)
            plan.runs[run_id(spec)].parent = name
            arm = parent.arms[0].name if len(parent.arms) == 1 else ""
            run = Run(plan.runs[run_id(spec)].run.folder.parent / name)
            run.announce(parent)
            run.finish(dataclasses.replace(result(0.0), seconds=seconds[parent.method.name, arm]))
            plan.runs[name] = PlannedRun(run=run, spec=parent, state="done", parent=None)
    table = next(table for table in tables.tables(plan, collect.cells(plan)) if table.number == 2)
    (row,) = table.rows
    assert row[:6] == ("isic", "50 min", "83 min", "2 h 13 min", "33 min", "75%")
    assert row[6:] == ("109 h 21 min", "29 h 58 min", "73%")


def test_differences_are_taken_seed_by_seed(plan):
    cells = collect.cells(plan)
    theirs = next(c for c in cells if (c.row, c.column) == (("Supervised", "ViT B/16"), "100%"))
    theirs.results = {78: result(0.2), 77: result(0.3)}
    table = tables.comparison_table(differences.comparisons(cells))
    row = next(r for r in table.rows if r[1:4] == ("ViT B/16", "100%", "CASS − Supervised"))
    assert row[4:] == ("+0.3000 ± 0.1414 (2)", "–", "–", "–", "–", "+0.1619")


def test_a_difference_has_both_intervals_the_larger_p_and_what_would_be_found(tmp_path):
    ours, theirs = make_cells(tmp_path, 2)
    ours.row, theirs.row = ("CASS", "ResNet-50"), ("Supervised", "ResNet-50")
    score_cell(ours, {seed: 0.75 + 0.01 * (seed % 3) for seed in ours.runs}, images=200)
    score_cell(theirs, dict.fromkeys(theirs.runs, 0.7), images=200)
    found = difference([(ours, theirs)])
    ((*_, shown, over_seeds, over_both, p, detectable),) = tables.comparison_table(
        differences.comparisons([ours, theirs])
    ).rows
    assert shown == "+0.0600 ± 0.0100 (5)"
    assert over_seeds == "+0.0476 to +0.0724"  # 0.06 ± 2.776 · 0.01 / √5
    assert over_both == texts.estimated(found.over_both) and float(over_both.split()[0]) < 0.0476
    assert p == f"{found.over_both.p:.3f}" and found.over_both.p > found.over_seeds.p
    assert detectable == f"{found.detectable:.4f}" and found.detectable > found.over_seeds.detectable


def test_cass_with_a_guard_is_compared_with_the_papers_and_with_supervised_training():
    plugin = DATASETS.find("isic").DATASET
    dataset = DatasetInfo(DatasetRef(name="isic", fingerprint="0" * 16), plugin.label_fractions, plugin.metric)
    entries = load_grid("cass_vc").entries([dataset], [77, 78], paper.preset("paper"))
    values = {"CASS": 0.5, "Supervised": 0.4, "DINO": 0.3, "CASS + variance–covariance": 0.7}
    cells = [
        collect.Cell("main", "isic", e.row, e.column, "accuracy", e.spec, {}, {77: result(values[e.row[0]])})
        for e in entries
        if e.spec.seed == 77
    ]
    rows = [
        row[3:5]
        for row in tables.comparison_table(differences.comparisons(cells)).rows
        if row[1:3] == ("ViT B/16", "10%")
    ]
    assert rows == [
        ("CASS − DINO", "+0.2000 (1)"),
        ("CASS − Supervised", "+0.1000 (1)"),
        ("CASS + variance–covariance − CASS", "+0.2000 (1)"),
        ("CASS + variance–covariance − Supervised", "+0.3000 (1)"),
    ]


def test_names_with_characters_of_markup_are_escaped_in_every_format():
    name = "=1|<b>_$x{y}\x1b[31m\n\\"
    made = tables.Table(None, name, 1, ("dataset", name), [(name, "0.5")], (f"note {name}",))
    assert "\x1b" not in formats.as_text([made]) and "\\x1b[31m\\n" in formats.as_text([made])
    markdown = formats.as_markdown([made])
    assert "\x1b" not in markdown and "<b>" not in markdown and "&lt;b>" in markdown and "=1\\|" in markdown
    latex = formats.as_latex([made])
    assert "\x1b" not in latex
    assert r"=1$\mid$$<$b$>$\_\$x\{y\}\textbackslash{}x1b[31m" in latex


def test_a_saving_of_nearly_nothing_has_no_sign():
    assert texts.saving(1.001, 1.0) == "0%" and texts.saving(1.0, 4.0) == "75%" and texts.saving(2.0, 1.0) == "-100%"
