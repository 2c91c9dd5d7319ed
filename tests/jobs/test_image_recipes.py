"""The recipes of the image that jobs may run in: both make the same one, of this project's lock. None is built here."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field

from repository import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass
class Recipe:
    base: str = ""
    copied: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)


def lines_of(name: str) -> list[str]:
    text = (ROOT / "slurm" / name).read_text(encoding="utf-8")
    assert "\t" not in text and text.endswith("\n") and all(line == line.rstrip() for line in text.splitlines())
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def definition() -> Recipe:
    """Apptainer's: a header of keys, then sections of indented lines."""
    out, section, header = Recipe(), "", {}
    for line in lines_of("image.def"):
        if line.startswith("%"):
            section = line[1:]
            assert section in ("files", "post", "test")
        elif not section:
            key, value = line.split(": ")
            header[key] = value
        elif section == "files":
            source, target = line.split()
            out.copied[source] = target
        else:
            assert line.startswith("    ")
            out.commands.append(line.strip())
    assert set(header) == {"Bootstrap", "From"} and header["Bootstrap"] == "docker"
    out.base = header["From"]
    return out


def dockerfile() -> Recipe:
    """An instruction a line."""
    out = Recipe()
    for line in lines_of("Dockerfile"):
        instruction, words = line.split(" ", 1)
        if instruction == "FROM":
            assert not out.base
            out.base = words
        elif instruction == "COPY":
            source, target = words.split()
            out.copied[source] = target
        else:
            assert instruction == "RUN"
            out.commands.append(words)
    return out


def test_both_recipes_make_one_image():
    assert definition() == dockerfile()


def test_the_image_has_what_the_lock_names_and_a_python_that_the_project_runs_on():
    recipe = definition()
    assert recipe.copied == {"requirements.lock": "/tmp/requirements.lock"} and (ROOT / "requirements.lock").exists()
    assert re.search(r"pip install .*--require-hashes -r /tmp/requirements\.lock$", recipe.commands[0])
    found = re.fullmatch(r"python:(3)\.(\d+)-slim", recipe.base)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = re.fullmatch(r">=3\.(\d+)", project["requires-python"])
    assert found and oldest and int(found[2]) >= int(oldest[1])
    (imported,) = re.findall(r'"import ([\w, ]+)"', recipe.commands[-1])
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    names = {"sklearn": "scikit-learn"}
    assert all(re.search(rf"(?m)^{names.get(name, name)}==", locked) for name in imported.split(", "))


def test_the_commands_are_a_shell_script():
    script = "\n".join(definition().commands)
    assert subprocess.run(["sh", "-n", "-c", script], capture_output=True, text=True).stderr == ""
