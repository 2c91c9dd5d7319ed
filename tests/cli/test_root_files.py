"""The files at the root that tools read: hooks, citation, targets; and that the documents name what is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

yaml = pytest.importorskip("yaml")


def test_the_hooks_are_local_and_name_tools_of_make_lint() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    for hook in repository["hooks"]:
        tool, *arguments = hook["entry"].split()
        assert f"$(BIN)/{Path(tool).name}" in lint and hook["language"] == "system"
        assert not arguments or arguments[0] in ("check", "format")


def test_the_citation_names_this_version_and_the_paper() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    (paper,) = cited["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Singh", "Sizikova", "Cirrone"]
    assert f"## {project['version']}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_make_help_lists_every_target() -> None:
    done = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert phony and {line.split()[0] for line in done.stdout.splitlines()} == set(phony[1].split())


@pytest.mark.parametrize("name", ["CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "README.md", "docs/grids.md"])
def test_links_to_files_lead_somewhere(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert not [target for target in targets if not (page.parent / target).exists()]
