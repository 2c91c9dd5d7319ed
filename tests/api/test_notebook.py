"""docs/own_images.ipynb does what it shows: from own images to a table, a figure and new scores.

Run as a program, this file executes the notebook and stores it with its outputs: `python tests/api/test_notebook.py`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "own_images.ipynb"
CODE = (
    "import nbformat, sys\n"
    "from nbclient import NotebookClient\n"
    "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
    "try:\n"
    "    NotebookClient(notebook, timeout=600, kernel_name='python3').execute()\n"
    "finally:\n"
    "    nbformat.write(notebook, sys.argv[2])\n"
)


def executed(folder: Path) -> dict[str, Any]:
    """The notebook with what its cells give, executed by a kernel of its own."""
    for name in ("ipython", "jupyter"):
        (folder / name).mkdir()
    path = os.pathsep.join([str(ROOT / "pipeline" / "alias"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    places = {"IPYTHONDIR": "ipython", "JUPYTER_RUNTIME_DIR": "jupyter"}
    environment = {
        **os.environ,
        **{name: str(folder / place) for name, place in places.items()},
        "PYTHONPATH": path,
        "PYTHONWARNINGS": "ignore",
    }
    words = [sys.executable, "-c", CODE, str(NOTEBOOK), str(folder / "out.ipynb")]
    with tempfile.TemporaryDirectory() as short:  # sockets have short paths
        environment["TMPDIR"] = short
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "out.ipynb").read_text(encoding="utf-8"))
    return found


def outputs(cell: dict[str, Any]) -> list[tuple[str, str]]:
    """The kinds of a cell's outputs with their text."""
    found = []
    for output in cell.get("outputs", ()):
        data = output.get("data") or {"text/plain": output.get("text", "")}
        found += [(kind, "".join(text)) for kind, text in data.items()]
    return found


def test_the_notebook_ends_with_a_table_a_figure_and_new_scores(tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [cell for cell in executed(tmp_path)["cells"] if cell["cell_type"] == "code"]
    said = [outputs(cell) for cell in cells]
    texts = ["\n".join(text for _, text in found) for found in said]
    assert "{'pretrain': {'done': 1}, 'finetune': {'done': 8}}" in texts[4]
    table = dict(said[5])["text/html"]
    assert table.count("<tr") == 4 + 2 and re.search(r"<td>[01]\.\d+</td>", table)
    assert [kind for kind, _ in said[6] if kind == "image/png"] == ["image/png"]
    assert re.search(r"\(\('large', 'small'\),\s+array\(\[\[[\d., e-]+\],\s+\[[\d., e-]+\]\]", texts[7])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        made = executed(Path(temporary))
    for each in made["cells"]:
        each.get("metadata", {}).pop("execution", None)
    NOTEBOOK.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
