"""The wheel, as somebody has it who never saw this repository: its command, in a folder of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from repository import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the wheel's packages, and the script that pip makes of its command."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pipeline", "slurm"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "source" / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    build = "import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, folder], cwd=folder / "source", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "lib")
        points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "cass-pipeline = pipeline.__main__:command" in archive.read(points).decode()
    (folder / "bin").mkdir()
    (folder / "bin" / "cass-pipeline").write_text("from pipeline.__main__ import command\ncommand()\n")
    return folder


def run(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = str(installed / "bin" / "cass-pipeline")
    environment = {**os.environ, "PYTHONPATH": str(installed / "lib")}
    return subprocess.run(
        [sys.executable, script, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_the_wheel_has_all_that_its_commands_read(installed):
    ours = {path.relative_to(ROOT) for path in (ROOT / "pipeline").rglob("*") if path.is_file()}
    ours = {path for path in ours if "__pycache__" not in path.parts and path.parts[:2] != ("pipeline", "alias")}
    ours.add(Path("cass_pipeline/__init__.py"))
    ours |= {Path("pipeline/sites") / path.name for path in (ROOT / "slurm").glob("*.toml")}
    lacking = {str(path) for path in ours if not (installed / "lib" / path).is_file()}
    assert lacking == {name for name in lacking if name.startswith("pipeline/sites/devcluster")}


def test_its_command_works_where_the_current_folder_has_a_pipeline_of_its_own(installed, tmp_path):
    (tmp_path / "pipeline.py").write_text("raise SystemExit('the wrong pipeline')\n")
    listing = run(installed, tmp_path)
    assert listing.returncode == 0 and "shard " in listing.stdout, listing.stderr
    assert listing.stdout.startswith("usage: cass-pipeline COMMAND [--help] ...\n")
    named = run(installed, tmp_path, "--version")
    assert (named.returncode, named.stdout) == (0, "cass-pipeline 0.1.0\n"), named.stderr
    planned = run(installed, tmp_path, "launch", "--grid", "demo", "--dry-run")
    assert planned.returncode == 3, planned.stderr
    assert "shards are missing; make them: cass-pipeline shard toy --size 64\n" in planned.stdout
    assert run(installed, tmp_path, "launch", "--help").stdout.startswith("usage: cass-pipeline launch [-h]")
    site = run(installed, tmp_path, "status", "--cluster", "nowhere")
    assert site.returncode == 2 and "known: devcluster, local, rtx8000, template" in site.stderr
    unknown = run(installed, tmp_path, "report", "--grid", "nothing")
    assert (unknown.returncode, "python -m" in unknown.stderr) == (2, False)
    wrong = run(installed, tmp_path, "shards")
    assert wrong.returncode == 2 and "there is no command 'shards'" in wrong.stderr


def test_a_cluster_file_of_the_current_folder_comes_first(installed, tmp_path):
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "mine.toml").write_text('runs = "elsewhere"\n')
    site = run(installed, tmp_path, "status", "--cluster", "mine")
    assert site.returncode == 2 and "there is no run in" in site.stderr and "elsewhere" in site.stderr
    other = run(installed, tmp_path, "status", "--cluster", "other")
    assert "known: devcluster, local, mine, rtx8000, template" in other.stderr


def test_the_second_name_gives_the_interface_where_the_current_folder_has_a_pipeline_of_its_own(installed, tmp_path):
    (tmp_path / "pipeline.py").write_text("raise SystemExit('the wrong pipeline')\n")
    environment = {**os.environ, "PYTHONPATH": str(installed / "lib")}

    def python(code: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", code]
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)

    shown = python(
        "import cass_pipeline, sys\n"
        "print(cass_pipeline.make_plan('demo', seeds=1).counts()['pretrain'])\n"
        "print(sys.modules['pipeline.api'].__file__, 'torch' in sys.modules)\n"
    )
    assert shown.stderr == "" and shown.stdout.splitlines()[0] == "{'no shards': 2}"
    assert shown.stdout.splitlines()[1] == f"{installed / 'lib' / 'pipeline' / 'api' / '__init__.py'} False"
    (tmp_path / "pipeline.py").write_text("")
    refused = python("import pipeline, cass_pipeline")
    assert refused.returncode == 1 and "pipeline.py; import cass_pipeline before it, or rename it" in refused.stderr
