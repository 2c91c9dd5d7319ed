"""Written tars are read back by the stock reader before the manifest says that they are complete."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from messy import CLASSES
from repository import ROOT
from small_shards import plan_of, rows_of

from pipeline.core.console import silent
from pipeline.data.shards import read_back as reading
from pipeline.data.shards import summary, write
from pipeline.data.shards.index import Shards
from pipeline.data.shards.plan import ShardPlan
from pipeline.data.shards.read_back import read_back
from pipeline.data.shards.tar import TarWriter

pytestmark = pytest.mark.usefixtures("inline", "small_tars")


def checked(plan: ShardPlan, out: Path) -> Shards:
    return write.write_shards(plan, out, workers=1, max_bad=0, strict=True, progress=silent, check=True)


def test_the_manifest_says_who_read_the_tars(raw: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    plan = plan_of(raw)
    shards = checked(plan, tmp_path)
    assert shards.manifest["read_back_by"] == f"webdataset {version('webdataset')}"
    assert "the new tars were read back by webdataset" in summary.of_shards(shards, plan)


def test_without_the_library_it_says_that_nobody_did(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    plan = plan_of(raw)
    shards = checked(plan, tmp_path)
    assert shards.manifest["read_back_by"] is None
    said = "not read back by a second reader: --no-check, or the extra webdataset is not installed"
    assert f"the new tars were {said}\n" in summary.of_shards(shards, plan)


@pytest.mark.parametrize("what", ["a dot in a key", "a sample twice", "other bytes", "cut"])
def test_what_the_reader_does_not_read_as_written_ends_the_job_without_a_manifest(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    add = TarWriter.add

    def spoiled(self: TarWriter, name: str, data: bytes) -> int:
        if what == "a dot in a key":
            name = f"x.{name}"
        if what == "a sample twice" and name.endswith("json"):
            add(self, name, data)
        return add(self, name, data)

    def cut(folder: Path, tars: Any, rows: Any) -> Any:
        path = folder / tars[0]
        data = bytearray(path.read_bytes())
        data[rows_of(Shards(folder, {}))[0]["offset"]] ^= 255
        path.write_bytes(data if what == "other bytes" else data[:1000])
        return read_back(folder, tars, rows)

    if what in ("cut", "other bytes"):
        monkeypatch.setattr(Shards, "index_checksum", "0" * 64)
        monkeypatch.setattr(write, "read_back", cut)
    else:
        monkeypatch.setattr(TarWriter, "add", spoiled)
    with pytest.raises(ValueError, match="webdataset"):
        checked(plan_of(raw), tmp_path)
    assert not list(tmp_path.rglob("manifest.json"))


def test_the_example_of_another_loader_in_the_documents_runs(raw: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    shards = checked(plan_of(raw), tmp_path)
    text = (ROOT / "docs" / "datasets.md").read_text()
    (code,) = re.findall(r"## Other loaders.*?```python\n(.*?)```", text, re.DOTALL)
    code = re.sub(r"^folder = .*$", f"folder = Path({str(shards.folder)!r})", code, flags=re.MULTILINE)
    code += "print(len(images), {image.size for image in images}, sorted(set(map(str, labels))), image.size)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trained = shards.manifest["counts"]["train"]["images"]
    labels = sorted(["None", *(str([name]) for name in CLASSES)])
    assert done.stdout.strip() == f"{trained} {{(16, 16)}} {labels} (16, 16)"


def test_the_reader_does_not_import_torch(raw: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    tar = next(checked(plan_of(raw), tmp_path).folder.glob("*.tar"))
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__');"
        "assert not sys.modules.get('torch') and 'pipeline' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, reading.__file__, tar], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 10
