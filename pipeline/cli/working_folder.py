"""The files of a working folder (`init`): a cluster file of this site, a grid to edit, what to type."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core import toml
from pipeline.runs import cluster
from pipeline.study import grid_file

if TYPE_CHECKING:
    from pipeline.jobs.slurm.site import SiteAnswers

CLUSTER, GRID, README = Path("slurm") / "site.toml", Path("my_grid.toml"), Path("README.md")
OWN_GRID = Path(grid_file.__file__).with_name("own_grid.toml")
STEPS = """\
1. Here: `cass-pipeline shard my_images --layout folder --raw IMAGES --size 64`; IMAGES has one folder for each class.
2. Edit `my_grid.toml`; `cass-pipeline launch --grid my_grid.toml --cluster site --dry-run`, and without `--dry-run`.
3. `cass-pipeline status --grid my_grid.toml --cluster site`; after a stop or a failure, launch again (`--retry`).
4. `cass-pipeline report --grid my_grid.toml --cluster site --html`, and open `reports/my_grid/report.html`.
5. `cass-pipeline predict RUN MORE_IMAGES --cluster site`; RUN is a part of an id that `status` or the report shows.
"""


def files_of(site: SiteAnswers | None) -> dict[Path, str]:
    """The text of each file, by its path in the folder; site: None for a machine without Slurm."""
    made = slurm_text(site) if site else local_text()
    cluster.from_json(toml.tables(made))  # it must be one that is read
    return {CLUSTER: made, GRID: OWN_GRID.read_text(encoding="utf-8"), README: STEPS}


def local_text() -> str:
    """The cluster file of this machine alone; without Ray, which does not start on a machine that is very busy."""
    text = (cluster.FOLDER / "local.toml").read_text(encoding="utf-8")
    head = "# This machine, without Slurm. Relative paths start at the folder that a command runs in.\n"
    return head + with_values(_body(text), {"ray": False})


def slurm_text(site: SiteAnswers) -> str:
    """The cluster file of a Slurm site: the template's lines with what Slurm answered."""
    best, *others = site.offers
    values: dict[str, Any] = {
        "scratch": f"{site.temporary.rstrip('/')}/cass-pipeline",
        "gpu_model": best.gpu_model,
        "device": "cuda" if best.gres else "cpu",
        "partition": best.partition,
        "account": site.accounts[0] if len(site.accounts) == 1 else "",
        "gres": best.gres,
        "cpus": best.cpus,
        "memory_gb": best.memory_gb,
        "hours": math.floor(best.hours * 100) / 100,
        "signal_seconds": max(1, min(300, int(best.hours * 900))),
        "max_jobs": site.max_jobs,
        "accounting": site.accounting,
    }
    notes = [
        "A cluster file of this site, as Slurm answered. Check it: `launch --dry-run` compares every line with Slurm."
    ]
    notes += [f"other partition: {offer.text()}" for offer in others]
    notes += [f"your accounts: {', '.join(site.accounts)}"] if len(site.accounts) > 1 else []
    if best.disk_gb:
        notes.append(f"a node has {best.disk_gb} GB at {site.temporary}")
    notes.append('where each job has a folder of its own: scratch = "$SLURM_TMPDIR/cass"')
    text = (cluster.FOLDER / "template.toml").read_text(encoding="utf-8")
    return "".join(f"# {note}\n" for note in notes) + with_values(_body(text), values)


def _body(text: str) -> str:
    """A cluster file without the comment that it begins with."""
    return "\n" + text[text.index("executor = ") :]


def with_values(text: str, values: Mapping[str, Any]) -> str:
    """A TOML text with other values for some keys; comments keep their column where there is room."""
    for key, value in values.items():
        shown = json.dumps(value, ensure_ascii=False)

        def line(found: re.Match[str], key: str = key, shown: str = shown) -> str:
            start = f"{key} = {shown}"
            return start + (f" {found[2]}".rjust(len(found[0]) - len(start)) if found[2] else "")

        pattern = rf"^{key} = ((?:[^#\n\"]|\"[^\"\n]*\")*?)[ \t]*(#.*)?$"
        text, count = re.subn(pattern, line, text, count=1, flags=re.M)
        assert count == 1, key
    return text
