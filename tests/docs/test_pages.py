"""The documents: every command in them parses, every link leads somewhere, the site builds."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

from pipeline.__main__ import COMMANDS

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
HISTORY = ("decisions/", "renames.md")
"""Pages in the words of their time: their commands may have changed since."""
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
CALL = re.compile(r"^(?:python -m pipeline\.|cass-pipeline )(\w+)(.*)$")


def commands_of(page: Path) -> list[tuple[str, str]]:
    """The calls of our commands in a page's code blocks: name and arguments; those cut short by dots are left out."""
    out = []
    for block in FENCED.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if (match := CALL.match(line.strip())) and "..." not in line and "…" not in line:
                out.append((match[1], match[2]))
    return out


LIVING = [page for page in PAGES if not any(part in str(page) for part in HISTORY)]


@pytest.mark.parametrize("page", LIVING, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_page_parses(page):
    for name, text in commands_of(page):
        assert name in COMMANDS, f"{page.name}: there is no command {name}"
        parser = importlib.import_module(f"pipeline.{name}").parser()
        arguments = shlex.split(text, comments=True)
        arguments = arguments[: next((i for i, word in enumerate(arguments) if word in ("|", "&&", ">", ";")), None)]
        try:
            parser.parse_args(arguments)
        except SystemExit as error:
            assert error.code == 0, f"{page.name}: {name}{text}"


def test_the_pages_show_commands():
    named = {name for page in LIVING for name, _ in commands_of(page)}
    assert {"shard", "launch", "report", "status", "predict"} <= named


@pytest.mark.slow
def test_the_site_builds_without_a_dead_link_or_anchor(tmp_path):
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    launch = (tmp_path / "reference/commands/launch.html").read_text()
    assert "--dry-run" in launch and "print the plan" in launch
    assert "scratch_in_ram" in (tmp_path / "reference/cluster.html").read_text()
    assert "An installed wheel has it as <code>cass-pipeline launch</code>" in launch
    notebook = (tmp_path / "own_images.html").read_text()
    assert 'src="data:image/png;base64,' in notebook and notebook.count("<td>0.") > 4  # its figure and its table
    assert 'src="https://' not in (tmp_path / "index.html").read_text()  # nothing is fetched
