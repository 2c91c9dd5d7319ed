"""Benchmarks run and say what they must: every plugin once, in little; no number is judged."""

import json
import subprocess
import sys

import pytest

from pipeline.benchmarks import BENCHMARKS
from pipeline.benchmarks.support import limits
from pipeline.benchmarks.support.base import Bench, Row, Table, Way, compare
from pipeline.study import paper


def test_ways_take_turns_and_the_first_is_compared_with_the_others(tmp_path):
    asked = []

    def way(name, values, role="ours"):
        given = iter(values)

        def once():
            asked.append(name)
            return next(given)

        return Way(name=name, once=once, role=role)

    bench = Bench(scratch=tmp_path, raw=None, peers=None, rounds=3, quick=True, say=lambda line: None)
    made = compare("speed", "images/s", [way("ours", [8, 6, 7]), way("theirs", [2, 1, 3.5], "peer")], bench)
    assert asked == ["ours", "theirs"] * 3
    assert [row.median for row in made.rows] == [7, 2]
    assert made.ratio(made.rows[1]) == 3.5
    assert made.ratio(made.rows[0]) is None
    assert made.to_json()["rows"][1]["ours_over_this"] == 3.5


def test_less_may_be_better():
    rows = [Row(name="ours", role="ours", values=[2.0]), Row(name="theirs", role="peer", values=[8.0])]
    assert Table(title="time", unit="s", rows=rows, more_is_better=False).ratio(rows[1]) == 4


@pytest.mark.parametrize("backbone", paper.STANDARD, ids=lambda backbone: backbone.title)
def test_torch_counts_the_arithmetic_that_the_estimates_reckon_with(backbone):
    assert limits.gigaflops([backbone], paper.IMAGE_SIZE) == pytest.approx(backbone.gflops, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS.names())
def test_a_benchmark_in_little_prints_and_keeps_its_tables(name, tmp_path):
    command = [sys.executable, "-m", "pipeline.bench", name, "--quick", "--rounds", "1"]
    command += ["--raw", "nowhere", "--scratch", "scratch", "--out", "out", "--peers", "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    kept = json.loads((tmp_path / "out" / f"{name}-quick.json").read_text())
    assert kept["cpu"] and kept["libraries"]["torch"] and kept["tables"]
    for table in kept["tables"]:
        assert table["title"] in done.stdout
        assert table["rows"][0]["role"] == "ours"
        assert all(value > 0 for row in table["rows"] for value in row["values"])


def test_an_unknown_benchmark_is_answered_with_the_known_ones(tmp_path):
    command = [sys.executable, "-m", "pipeline.bench", "speed"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert all(name in done.stderr for name in BENCHMARKS.names())
