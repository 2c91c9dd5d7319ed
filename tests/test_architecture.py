"""The rules of the package: its commands, light imports, short files and functions, no command flag changes science,
one word for one thing."""

from __future__ import annotations

import ast
import importlib
import io
import re
import resource
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT

from pipeline.__main__ import COMMANDS, first_line

PACKAGE = ROOT / "pipeline"
HEAVY = ("torch", "timm", "torchvision", "ray", "submitit", "webdataset", "sklearn")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 60

# --- The commands ----------------------------------------------------------------------------------------------------


def run_watched(module: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a module of the package and print, last, which heavy libraries it imported."""
    code = (
        "import atexit, runpy, sys\n"
        f"atexit.register(lambda: print('IMPORTED', [n for n in {HEAVY!r} if n in sys.modules]))\n"
        f"sys.argv = {[module, *arguments]!r}\n"
        f"runpy.run_module({module!r}, run_name='__main__')\n"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


def test_the_modules_directly_in_the_package_are_the_commands_and_nothing_else():
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert modules == {*COMMANDS, "__init__", "__main__"}
    for command in COMMANDS:
        text = (PACKAGE / f"{command}.py").read_text()
        assert "def parser() -> argparse.ArgumentParser:" in text, command
        assert text.endswith('if __name__ == "__main__":\n    run_command(main)\n'), command


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_package_lists_every_command_and_imports_nothing_heavy(arguments, tmp_path):
    done = run_watched("pipeline", arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("IMPORTED []")
    listed = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert listed == [f"  {command:<10} {first_line(command)}" for command in COMMANDS]
    assert all(len(line) <= 75 and re.search(r" [A-Z][^.]*\.$", line) for line in listed)


def test_the_list_of_commands_takes_less_than_a_fifth_of_a_second(tmp_path):
    def processor_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    times = []
    for _ in range(3):
        before = processor_seconds()
        subprocess.run([sys.executable, "-m", "pipeline"], cwd=tmp_path, check=True, capture_output=True)
        times.append(processor_seconds() - before)
    assert min(times) < 0.2


def test_a_command_after_a_space_is_answered_with_the_right_call(tmp_path):
    words = [sys.executable, "-m", "pipeline", "launch", "--grid", "main", "--cluster", "my file.toml"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    expected = "python -m pipeline.launch --grid main --cluster 'my file.toml'"
    assert done.stderr == f"error: write a dot, not a space: {expected}\n"


@pytest.mark.parametrize("word", ["lunch", "--grid"])
def test_an_unknown_word_is_answered_with_the_list_of_commands(word, tmp_path):
    done = subprocess.run([sys.executable, "-m", "pipeline", word], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: there is no command '{word}'\n")
    assert all(f"  {command:<10} {first_line(command)}\n" in done.stderr for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_imports_nothing_heavy(command, tmp_path):
    done = run_watched(f"pipeline.{command}", ["--help"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"python -m pipeline.{command}" in done.stdout
    assert done.stdout.strip().endswith("IMPORTED []")


@pytest.mark.parametrize(
    "arguments",
    [
        ["launch", "--grid", "main", "--dry-run"],
        ["status", "--grid", "main"],
        ["report", "--grid", "main"],
        ["figures", "--grid", "main"],
    ],
)
def test_planning_status_and_tables_import_nothing_heavy(arguments, tmp_path):
    done = run_watched(f"pipeline.{arguments[0]}", arguments[1:], tmp_path)
    assert done.returncode in (0, 3), done.stderr  # 3: the shards are not there
    assert done.stdout.strip().endswith("IMPORTED []")


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("launch", {"--jobs", "--dry-run", "--retry", "--no-ray", "--print-sbatch"}),
        ("status", {"--watch", "--failed", "--parquet"}),
        ("track", {"--to", "--uri", "--project", "--follow"}),
        ("cancel", {"--yes"}),
        ("report", {"--run", "--out", "--html", "--with-images", "--with-pictures", "--specificity"}),
        ("figures", {"--out", "--only", "--with-images", "--with-pictures", "--rollout"}),
    ],
)
def test_no_flag_changes_science(command, flags):
    """A scientific number is a field of a spec, set in a grid, never a flag; check that before you add a flag here."""
    parser = importlib.import_module(f"pipeline.{command}").parser()
    found = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    grid = {"--grid", "--datasets", "--seeds", "--weights", "--preset", "--cluster"}
    assert found - {"--help", "--wait", "--no-wait", "--quiet", "--json"} == grid | flags


# --- Layers and sizes ------------------------------------------------------------------------------------------------


def test_the_learning_layer_runs_without_the_schedulers_and_webdataset():
    code = (
        "import sys\n"
        "for name in ('ray', 'submitit', 'webdataset'):\n"
        "    sys.modules[name] = None\n"
        "import pipeline.learn.pretrain, pipeline.learn.finetune, pipeline.learn.methods.cass, pipeline.jobs.execute\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_longest_file_and_the_longest_function_are_within_the_limits():
    """Prints both; `make lint` shows them."""
    lines, functions = [], []
    for path in PACKAGE.rglob("*.py"):
        name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        lines.append((len(text.splitlines()), name))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                functions.append((node.end_lineno - node.lineno + 1, f"{name}: {node.name}"))
    for what, found, limit in (("file", lines, MAX_FILE_LINES), ("function", functions, MAX_FUNCTION_LINES)):
        print(f"longest {what}: {max(found)[1]}, {max(found)[0]} lines (limit {limit})")
    assert [entry for entry in lines if entry[0] > MAX_FILE_LINES] == []
    assert [entry for entry in functions if entry[0] > MAX_FUNCTION_LINES] == []


# --- Words -----------------------------------------------------------------------------------------------------------

RETIRED = {
    "command": r"doors?",
    "plugin": r"leaf|(?:the|all|these|its|own|of|new|other) leaves",
    "architecture or package": r"houses?",
    "layer": r"floors|(?<!\.)floor(?! ?\()",
    "publisher or payload": r"carriers?|carried by|carried_by",
    "execute": r"carr(?:y|ies|ied|ying)[ _]out",
    "job array": r"drafts?",
    "job": r"bundles?",
    "restart or again": r"anew",
    "speed-up": r"ours is better",
    "image": r"pictures?",
    "GPU": r"(?:a|an|another|every|no|each|this) cards?|cards",
    "request": r"wish(?:es|ed)?",
    "preflight problems": r"unmet",
    "signals, heartbeat or output": r"life",
    "check, read or poll": r"look(?:s|ed|ing)?[ _]at",
    "next to or also": r"besides?",
    "fix or repair": r"mend(?:s|ed|ing)?",
    "is in": r"lies|lie (?:in|on|at|below)",
    "is": r"stands(?! for\b)(?!-)",
    "continue": r"(?:go|goes|going|went|gone)[ _]on(?![ _](?:a|the|one|two)\b)",
    "this grid has no run for this claim": r"no seed has all",
}
"""The word to use, and the pattern of the old words that it has replaced (any case)."""
RETIRED_NAMES = {"Item", "Bundle", "Draft", "Order", "Card", "Place", "Places", "Leaf", "Wish", "Carrier"}
"""Identifiers in code that have been replaced."""
KEPT = {
    r"[\"'`]pictures[\"'`]": "a key of manifests, figures.json and of seeds",
    r"[\"'`]picture[\"'`]": "a column of the CSV of predictions",
    r"(?:train|labelled)_pictures": "a key of results",
    r"\bpictures(?==|: int \| None)|\.pictures\b": "a field of the specs and of the scale that sets it",
    r"pictures\.csv": "a file name of a stand-in",
    r"[\"']picture,label|[\"']one picture[\"']": "a header that a test must refuse; a seed",
    r"--with-pictures": "the old spelling of a flag, which still works",
    r"[\"'`](?:carried_by|goes_on_from)[\"'`]": "keys of start.json and result.json",
    r"[\"'`]go_on[\"'`]": "a value of on_other_card in cluster files",
    r"draft mode|\bdraft\b(?=: bool|=|:$)|\.draft\(": "draft mode is Pillow's name for decoding at a smaller size",
}
"""Patterns of text in which an old word stays, with the reason."""
NOT_SEARCHED = ("docs/decisions/", "docs/renames.md", "pipeline/study/renames.py", "tests/test_architecture.py")
"""Decisions are history; the tables of renamings and this file name the old words."""
SEARCHED = (".py", ".md", ".toml", ".sh", ".j2", ".txt", "Makefile", "run", "up", "down")


def searched_files() -> Iterator[tuple[str, str]]:
    """The name and the text of every file in which old words must not come back."""
    folders = ["pipeline", "tests", "slurm", "docs", "shards", ".ci"]
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    for path in [ROOT / "README.md", ROOT / "Makefile", ROOT / "pyproject.toml", *paths]:
        name = path.relative_to(ROOT).as_posix()
        if path.is_file() and name.endswith(SEARCHED) and not name.startswith(NOT_SEARCHED):
            yield name, path.read_text(encoding="utf-8")


def test_old_words_are_gone_from_the_package_its_tests_and_its_documentation():
    kept = re.compile("|".join(KEPT))
    old = {new: re.compile(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])", re.IGNORECASE) for new, words in RETIRED.items()}
    found = []
    for name, text in searched_files():
        for number, line in enumerate([name, *text.splitlines()]):  # line 0 is the file's own name
            rest = kept.sub("", line)
            found += [
                f"{name}:{number}: {match[0]!r} is now {new!r}: {line.strip()[:100]}"
                for new, pattern in old.items()
                for match in pattern.finditer(rest)
            ]
    assert not found, "\n".join([f"{len(found)} old words:", *found])


def test_old_names_are_gone_from_the_code():
    found = []
    for name, text in searched_files():
        if name.endswith(".py"):
            tokens = tokenize.generate_tokens(io.StringIO(text).readline)
            names = {token.string for token in tokens if token.type == tokenize.NAME}
            found += [f"{name}: {old}" for old in sorted(names & RETIRED_NAMES)]
    assert not found, "\n".join(found)
