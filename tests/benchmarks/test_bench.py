"""Every benchmark runs with `--quick` and writes the tables that it must; no number is judged."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from commands import command

from pipeline.benchmarks import BENCHMARKS
from pipeline.benchmarks.augment import OPERATIONS
from pipeline.benchmarks.support import limits
from pipeline.benchmarks.support.measure import Case, Settings, compare, processor_seconds
from pipeline.benchmarks.support.tables import Row, Table, number
from pipeline.study import paper

QUICK_TABLES = {
    "augment": {
        "augmentation": [
            "ours: ours, uint8 in memory",
            "peer: the paper's loader, raw files",
            "peer: torchvision v2, uint8 in memory",
            "limit: writing the float32 bytes",
        ],
        "one operation": [f"ours: {name}" for name in OPERATIONS],
    },
    "checkpoint": {
        "the loop's wait for a checkpoint": [
            "ours: ours",
            "ours: ours, the first of a run",
            "peer: torch.save",
            "limit: copying as many bytes",
        ],
        "the whole write": ["ours: ours, hashed", "peer: torch.save and fsync", "limit: as many bytes and fsync"],
        "bookkeeping": [
            "ours: all bookkeeping",
            "ours: copies for checkpoints",
            "ours: averaging",
            "ours: an epoch's line and TensorBoard",
            "ours: between steps: learning rates, losses, heartbeat",
        ],
    },
    "fanout": {
        "fine-tunes on cpu": [
            "ours: 2 at once, 1 thread each, worker processes",
            "ours: 1 at once, 1 thread each, worker processes",
        ],
    },
    "formats": {
        **{
            kind: ["ours: pipeline.shard", "peer: a plain loop", "limit: decoding alone"]
            for kind in ("DICOM, 16 bits, raw", "DICOM, JPEG", "NIfTI, compressed", "slide tiles", "webdataset")
        },
        "planning, time": ["ours: 200 frames"],
        "planning, memory": ["ours: 200 frames"],
    },
    "load": {
        "batches of 16": [
            "ours: ours, from the map: uint8",
            "ours: ours, from tars: uint8",
            "peer: paper's: raw files",
            "peer: paper's: files of 64",
            "limit: memcpy of the same bytes, all cores",
        ],
        "building the map": [
            "ours: ours: read, verified, decoded, written, fsync",
            "peer: Pillow, one thread: decoded only",
            "limit: decoded only, all cores",
        ],
        "memory of the reader": ["ours: ours, from the map", "ours: ours, from tars", "peer: paper's: raw files"],
    },
    "plan": {
        title + kind: rows
        for title, rows in {
            "the plan of grid main": [
                "ours: launch --dry-run of 144 runs",
                "ours: launch --dry-run of 72 runs",
                "limit: reading spec.json and result.json of 144 runs",
            ],
            "the states of the runs of grid main": [
                "ours: status of 144 runs",
                "ours: status of 72 runs",
                "limit: reading spec.json and result.json of 144 runs",
            ],
            "writing an index, row by row": ["ours: writing an index of 10,000", "ours: writing an index of 1,000"],
            "reading an index as training does": [
                "ours: 10,000: the training rows and their labels",
                "ours: 10,000: positions and checksums of 1,000 rows",
                "ours: 1,000: the training rows and their labels",
                "ours: 1,000: positions and checksums of 1,000 rows",
                "limit: 10,000: the columns alone, by pyarrow",
            ],
            "finding twins": ["ours: finding twins among 4,000", "ours: finding twins among 400"],
        }.items()
        for kind in ("", ": peak memory")
    },
    "shard": {
        "sharding": [
            "ours: pipeline.shard",
            "ours: pipeline.shard --decode dct",
            "peer: 2 processes, Pillow + webdataset.TarWriter",
            "limit: exact path in memory",
            "limit: decode alone",
            "limit: resize alone",
            "limit: encode alone",
        ],
        "a smaller job": ["ours: pipeline.shard"],
        "exactness": [
            f"{role}: {name}, {figure}"
            for role, name in (
                ("ours", "pipeline.shard"),
                ("ours", "pipeline.shard --decode dct"),
                ("peer", "Pillow in draft mode"),
                ("peer", "Pillow without antialiasing"),
                ("limit", "JPEG 95 of the expected pixels"),
            )
            for figure in ("mean", "minimum")
        ],
        "memory": ["ours: 12 images", "ours: 48 images"],
    },
    "start": {
        "commands as whole processes": [
            "ours: launch --help",
            "ours: launch --grid main --dry-run",
            "ours: status --grid main",
            "limit: import numpy",
            "limit: python alone",
        ],
        "from the process to the first step": ["ours: a fine-tune of tiny ResNet", "limit: import numpy"],
        "until a fan-out's first trial": ["ours: worker processes"],
        "each further trial": ["ours: worker processes"],
    },
    "step": {
        "step alone": ["ours: ours, augmentation included", "peer: a plain loop, no augmentation"],
        "step with loading": [
            "ours: ours, from shards",
            "peer: a plain loop, from raw files",
            "limit: ours, batch in memory",
        ],
        "arithmetic": [
            "ours: the step alone",
            "ours: the step with loading",
            "limit: multiplying matrices of 256×256",
        ],
        "CASS and its arms alone": [
            "ours: CASS, both arms",
            "limit: both arms alone, in their fastest forms",
            "limit: tiny ResNet alone",
            "limit: tiny ResNet alone, channels_last",
            "limit: tiny ViT alone",
        ],
        "batches": ["ours: batches of 16"],
        "choices": [
            "ours: ours",
            "ours: optimizers not fused",
            "ours: the CNN in channels_last",
            "ours: any algorithms, the fastest by trial",
        ],
        "CASS and DINO": [
            "ours: CASS, both networks",
            "peer: DINO, K = 64, tiny ResNet",
            "peer: DINO, K = 64, tiny ViT",
            "peer: DINO, K = 64, both networks",
        ],
    },
}
"""The rows of each table of each benchmark with `--quick`, without the peers' environment: `role: name`."""
OPTIONAL = {"shard": ["each further image"]}
"""Tables that a benchmark leaves out when its measurements do not allow them."""


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """Restore what a benchmark that runs in this process sets in torch."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS.names())
def test_a_quick_benchmark_prints_and_writes_its_tables(name, tmp_path, torch_settings):
    arguments = [name, "--quick", "--rounds", "1", "--raw", "nowhere", "--peers", "nowhere"]
    done = command("bench", *arguments, "--scratch", "scratch", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "out" / f"{name}-quick.json").read_text())
    assert (written["bench"], written["quick"]) == (name, True)
    assert written["cpu"] and written["date"] and written["cores"] > 0 and written["libraries"]["torch"]
    tables = {table["title"]: table for table in written["tables"]}
    rows = {title: [f"{row['role']}: {row['name']}" for row in table["rows"]] for title, table in tables.items()}
    assert {title: found for title, found in rows.items() if title not in OPTIONAL.get(name, [])} == QUICK_TABLES[name]
    for table in tables.values():
        check_numbers(table)
        assert table["title"] in done.stdout and table["unit"] in done.stdout
        assert all(f"  {note}\n" in f"{done.stdout}\n" for note in table["notes"])


def check_numbers(table: dict) -> None:
    """Every value is positive, and every row but the first says how many times better ours is."""
    ours, *others = table["rows"]
    assert ours["ours_over_this"] is None
    for row in table["rows"]:
        assert len(row["values"]) == 1 and row["values"][0] == row["median"] > 0, (table["title"], row)
    for row in others:
        better = ours["median"] / row["median"]
        assert row["ours_over_this"] == pytest.approx(better if table["more_is_better"] else 1 / better)


def test_several_benchmarks_run_one_after_another_each_in_a_process_of_its_own(tmp_path, monkeypatch):
    called = []

    def run(words):
        called.append(words)
        return subprocess.CompletedProcess(words, 1 if "plan" in words else 0)

    monkeypatch.setattr(subprocess, "run", run)
    done = command("bench", "plan", "load", "--quick", "--rounds", "2", "--scratch", "here", cwd=tmp_path)
    assert done.returncode == 1
    assert [words[:4] for words in called] == [
        [sys.executable, "-m", "pipeline.bench", name] for name in ("plan", "load")
    ]
    assert all({"--quick", "--rounds=2", "--scratch=here", "--out=reports/bench"} <= set(words) for words in called)


def test_the_error_for_an_unknown_benchmark_lists_the_known_names(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.bench", "speed"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert all(name in done.stderr for name in BENCHMARKS.names())


def test_cases_take_turns_and_the_others_are_compared_with_the_first(tmp_path):
    measured = []

    def case(name, values, role="ours"):
        given = iter(values)

        def measure():
            measured.append(name)
            return next(given)

        return Case(name=name, measure=measure, role=role)

    settings = Settings(scratch=tmp_path, raw=None, peers=None, rounds=3, quick=True, say=lambda line: None)
    table = compare("speed", "images/s", [case("ours", [8, 6, 7]), case("theirs", [2, 1, 3.5], "peer")], settings)
    assert measured == ["ours", "theirs"] * 3
    assert [row.median for row in table.rows] == [7, 2]
    assert table.ratio(table.rows[1]) == 3.5
    assert table.ratio(table.rows[0]) is None
    assert table.to_json()["rows"][1]["ours_over_this"] == 3.5


def test_less_can_be_better():
    rows = [Row(name="ours", role="ours", values=[2.0]), Row(name="theirs", role="peer", values=[8.0])]
    assert Table(title="time", unit="s", rows=rows, more_is_better=False).ratio(rows[1]) == 4


def test_a_printed_table_has_medians_ranges_speed_ups_and_notes():
    rows = [Row(name="ours", role="ours", values=[40, 50, 45]), Row(name="theirs", role="peer", values=[10])]
    table = Table(title="sharding", unit="images/s", rows=rows, notes=["two cores"])
    assert table.to_text().splitlines() == [
        "sharding        images/s  range     speed-up",
        "--------  ----  --------  --------  --------",
        "ours      ours        45  40 to 50",
        "theirs    peer        10                4.50",
        "  two cores",
    ]


@pytest.mark.parametrize(
    ("unit", "heading"),
    [
        ("images/s", "speed-up"),
        ("images a second", "speed-up"),
        ("seconds", "speed-up"),
        ("seconds a step", "speed-up"),
        ("TFLOP/s", "speed-up"),
        ("MB", "ratio"),
        ("dB", "ratio"),
        ("% of the run", "ratio"),
    ],
)
def test_only_times_and_rates_have_a_speed_up(unit, heading):
    assert Table(title="", unit=unit, rows=[]).ratio_name() == heading


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (4.5612, "4.56"), (99.94, "99.9"), (100, "100"), (12_300.4, "12,300")]
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize("backbone", paper.STANDARD, ids=lambda backbone: backbone.title)
def test_torch_counts_the_arithmetic_that_the_estimates_use(backbone):
    assert limits.gigaflops([backbone], paper.IMAGE_SIZE) == pytest.approx(backbone.gflops, abs=0.05)


def test_the_processor_time_of_processes_that_are_left_behind_counts() -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    leaves = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {busy!r}])"
    taken = processor_seconds(lambda: subprocess.run([sys.executable, "-c", leaves], check=True))
    assert taken >= 0.3
