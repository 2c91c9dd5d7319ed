"""The study behind decision 19: its tables are those of its results, and its program still starts."""

from __future__ import annotations

import runpy
import subprocess
import sys

from repository import ROOT

DECISIONS = ROOT / "docs" / "decisions"
STUDY = DECISIONS / "0019-study"


def test_the_tables_in_the_decision_are_made_of_the_results() -> None:
    text = (DECISIONS / "0019-guarded-cass.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- figures -->")[2].partition("<!-- end -->")[0].strip()
    assert shown == runpy.run_path(str(STUDY / "tables.py"))["tables"]().strip()


def test_the_program_of_the_study_starts() -> None:
    done = subprocess.run([sys.executable, STUDY / "study.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "pretrain" in done.stdout, done.stderr
