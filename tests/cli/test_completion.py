"""What completes words in a shell: every command and flag, as bash itself answers."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import command

from pipeline import completion
from pipeline.__main__ import COMMANDS
from pipeline.study.names import known_grids


def complete(script: str, folder: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    asked = " ".join(f"'{word}'" for word in ("cass-pipeline", *words))
    code = f"COMP_WORDS=({asked}); COMP_CWORD={len(words)}; {completion.FUNCTION}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", f"{script}\n{code}"], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not here")
def test_bash_completes_commands_flags_values_and_files(tmp_path: Path) -> None:
    done = command("completion", "bash", cwd=tmp_path)
    assert done.returncode == 0
    (tmp_path / "mine.toml").write_text("")
    offered = {
        (): sorted(COMMANDS),
        ("la",): ["launch"],
        ("launch", "--pre"): ["--preset"],
        ("launch", "--preset", ""): ["paper", "notebook", "sound"],
        ("launch", "--grid", "m"): ["main", "mine.toml"],
        ("report", "--datasets", ""): ["mine.toml"],
        ("completion", ""): ["bash", "zsh"],
        ("nothing", "--"): [],
    }
    for words, wanted in offered.items():
        assert complete(done.stdout, tmp_path, *(words or ("",))) == wanted, words
    assert set(known_grids()) <= set(complete(done.stdout, tmp_path, "status", "--grid", ""))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_script_has_every_flag_of_every_command(name: str) -> None:
    (line,) = [line for line in completion.script().splitlines() if line.strip().startswith(f"{name}) ")]
    parser = importlib.import_module(f"pipeline.{name}").parser()
    flags = {text for action in parser._actions for text in action.option_strings if text.startswith("--")}
    assert flags == set(line.partition("words='")[2].partition("'")[0].split() or line.split("words=")[1].split()[:1])


def test_zsh_reads_the_same_function(tmp_path: Path) -> None:
    script = command("completion", "zsh", cwd=tmp_path).stdout
    assert script.startswith("autoload -U +X bashcompinit && bashcompinit\n") and script.endswith(completion.script())
    if shutil.which("zsh"):
        done = subprocess.run(["zsh", "-fc", f"autoload -U compinit && compinit -u\n{script}"], capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
