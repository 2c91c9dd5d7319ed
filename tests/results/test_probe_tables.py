"""What probes found, as tables, CSV, curves and a line of status; runs of earlier code show a dash."""

from __future__ import annotations

import csv
import io
import statistics

import finished
import pytest
import tiny

from pipeline.cli.status_text import status_rows
from pipeline.core import files
from pipeline.jobs.plan import make_plan
from pipeline.results import formats, probes, report
from pipeline.results.figures import curves
from pipeline.results.figures.publish import NothingToDraw
from pipeline.runs.spec import method_of


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Two seeds of CASS, whose runs were judged, and of DINO, whose runs were not."""
    folder = tmp_path_factory.mktemp("probe-tables")
    grid = finished.make_grid(folder, tiny.make_shards(folder), methods=("cass", "dino"))
    return make_plan(str(grid), tiny.make_cluster(folder))


def judged(plan):
    return [p.run.result().probes for p in plan.runs.values() if method_of(p.spec) == "cass" and "pct" not in p.run.id]


def test_a_row_for_each_method_and_arm_with_the_gain_over_the_start(plan):
    (table,) = probes.tables(plan)
    assert table.title == "tiny: frozen features, start → end, test F1 (micro, at 0.5)"
    assert table.header[3:] == ("k-NN", "linear 10%", "linear 100%", "spread", "rank", "collapsed")
    assert [row[:2] for row in table.rows] == [
        ("CASS", "cnn"),
        ("CASS", "transformer"),
        ("DINO", "cnn"),
        ("DINO", "transformer"),
    ]
    one, other = judged(plan)
    name = "transformer_test_linear_10"
    start, end = ([each[when][name] for each in (one, other)] for when in ("start", "end"))
    gains = [after - before for before, after in zip(start, end, strict=True)]
    expected = f"{statistics.fmean(start):.3f} → {statistics.fmean(end):.3f} "
    expected += f"({statistics.fmean(gains):+.3f} ± {statistics.stdev(gains):.3f}, 2)"
    assert table.rows[1][4] == expected
    assert table.rows[2][3:] == ("–",) * 5 + ("no",)
    assert any("10%: 6, 100%: 64; judged on 8 val and 8 test images" in note for note in table.notes)


def test_one_run_a_start_that_is_not_known_and_none_are_told_apart():
    assert probes.start_to_end([(0.5, 0.75)], 2) == "0.500 → 0.750 (+0.250, 1 of 2)"
    assert probes.start_to_end([(None, 0.75)], 1) == "– → 0.750 (1)"
    assert probes.start_to_end([], 3) == "–"


def test_all_formats_and_the_csv_hold_them(plan, tmp_path):
    made = report.make_report(plan)
    written = {path.name: path.read_text() for path in report.write_report(made, tmp_path)}
    assert "frozen features, start → end" in written["report.txt"] and "frozen features" in written["report.md"]
    assert r"$\rightarrow$" in written["report.tex"] and "→" not in written["report.tex"]
    rows = list(csv.DictReader(io.StringIO(written["probes.csv"])))
    assert len(rows) == 2 * 2 * 2 * 3  # seeds, arms, parts, probes
    row = next(r for r in rows if (r["arm"], r["part"], r["probe"]) == ("cnn", "test", "linear"))
    found = plan.runs[row["run"]].run.result().probes
    assert float(row["start"]) == found["start"]["cnn_test_linear_10"] and row["label_fraction"] == "0.1"
    assert float(row["gain"]) == float(row["end"]) - float(row["start"])
    assert formats.as_text(probes.tables(plan)).count("–") >= 10


def test_the_curves_start_before_the_first_epoch(plan):
    run = next(p.run for p in plan.runs.values() if p.run.result().probes)
    points = curves._points(files.read_jsonl(run["metrics"]), "cnn_val_knn")
    found = run.result().probes
    assert points == {0: found["start"]["cnn_val_knn"], 4: found["end"]["cnn_val_knn"]}


def test_runs_of_earlier_code_are_dashes_everywhere(tmp_path):
    grid = finished.make_grid(tmp_path, tiny.make_shards(tmp_path), methods=("dino",))
    plan = make_plan(str(grid), tiny.make_cluster(tmp_path))
    (table,) = probes.tables(plan)
    assert table.header == ("method", "arm", "backbone", "k-NN", "spread", "rank", "collapsed")
    assert {row[3] for row in table.rows} == {"–"} and "no finished run was judged" in table.notes[0]
    assert probes.as_csv(plan) == ""
    with pytest.raises(NothingToDraw, match="judged by probes"):
        next(iter(curves.probes(plan, []))).draw()
    assert "probes.csv" not in {path.name for path in report.write_report(report.make_report(plan), tmp_path / "out")}


def test_status_shows_k_nn_from_start_to_end_and_to_the_newest(plan):
    rows = {row["run"]: row["says"] for row in status_rows(plan, None) if row["state"] == "done"}
    said = [says for says in rows.values() if "k-NN" in says]
    found = judged(plan)[0]
    cnn, vit = (
        " → ".join(f"{found[when][f'{arm}_val_knn']:.2f}" for when in ("start", "end"))
        for arm in ("cnn", "transformer")
    )
    assert len(said) == 2 and f", k-NN cnn {cnn}, transformer {vit}" in said[0]
