"""The public names of `pipeline.api` and their signatures: they change only with an entry in CHANGELOG.md."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

from pipeline import api

HELD = Path(__file__).parent / "interface.txt"
"""A line for each name, with its signature, and those of its methods and attributes."""


def listed() -> list[str]:
    """What is public now, as in `HELD`."""
    out = []
    for name in api.__all__:
        found = getattr(api, name)
        if not inspect.isclass(found):
            out.append(f"{name}{inspect.signature(found)}")
            continue
        out.append(name)
        attributes = {**found.__annotations__, **vars(found)}
        for attribute in sorted(each for each in attributes if not each.startswith("_")):
            value = vars(found).get(attribute)
            shown = str(inspect.signature(value)) if inspect.isfunction(value) else ""
            out.append(f"{name}.{attribute}{shown}")
    return out


def test_the_public_names_and_signatures_are_those_that_are_held() -> None:
    assert listed() == HELD.read_text().splitlines()
    assert sorted(api.HOMES) == sorted(api.__all__) == dir(api)


def test_every_public_name_says_what_it_does_and_has_annotations() -> None:
    for name in api.__all__:
        found = getattr(api, name)
        assert len((found.__doc__ or "").strip()) > 20, name
        members = [found] if inspect.isfunction(found) else [v for k, v in vars(found).items() if not k.startswith("_")]
        for member in members:
            function = member.fget if isinstance(member, property) else member
            assert function.__doc__ and "return" in function.__annotations__, (name, member)


def test_an_unknown_name_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="no attribute 'result'; it has: GridPlan, .*results"):
        _ = api.result


def test_importing_it_imports_nothing_else(tmp_path: Path) -> None:
    code = (
        "import sys, pipeline.api\n"
        "print([name for name in ('torch', 'numpy', 'pyarrow', 'PIL', 'timm') if name in sys.modules])\n"
        "pipeline.api.make_plan, pipeline.api.results\n"
        "print([name for name in ('torch', 'timm', 'ray', 'submitit') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


def test_the_second_name_has_the_same_names(tmp_path: Path) -> None:
    code = (
        "import cass_pipeline, pipeline.api\n"
        "assert dir(cass_pipeline) == dir(pipeline.api)\n"
        "assert all(getattr(cass_pipeline, name) is getattr(pipeline.api, name) for name in dir(cass_pipeline))\n"
        "from cass_pipeline import *\n"
        "results\n"
        "cass_pipeline.no_such_name\n"
    )
    path = os.pathsep.join([str(ROOT / "pipeline" / "alias"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "AttributeError: module 'cass_pipeline' has no attribute 'no_such_name'; it has: " in done.stderr


def test_the_page_of_the_interface_has_a_row_for_each_function() -> None:
    page = (ROOT / "docs" / "interface.md").read_text()
    assert all(f"`{name}(" in page or f"`{name}`" in page or f"`{name}:" in page for name in api.__all__)
