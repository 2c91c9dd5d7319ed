"""Make a folder to work in: cluster file, grid to edit, README.

cass-pipeline init DIR
cass-pipeline init DIR --dry-run      print the files, write nothing

Where Slurm answers, the cluster file has its partition, gres, limits and scratch; else it is of this machine. Files
that are there already stay as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import flags
from pipeline.core.console import run_command

if TYPE_CHECKING:
    from pipeline.jobs.slurm.site import SiteAnswers


def parser() -> argparse.ArgumentParser:
    out = flags.described("init", __doc__, quiet=False)
    out.add_argument("folder", metavar="DIR", type=Path, help="a new folder, or one that lacks some of the files")
    out.add_argument("--dry-run", action="store_true", help="print the files, write nothing")
    return out


def main() -> int:
    args = flags.given(parser())
    from pipeline.cli import working_folder
    from pipeline.core import files

    folder: Path = args.folder
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder")
    site, said = ask()
    print(said)
    for name, text in working_folder.files_of(site).items():
        path = folder / name
        if path.exists():
            print(f"there already, left as it is: {path}")
        elif args.dry_run:
            print(f"\n--- {path}\n{text}", end="")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(path, text)
            print(f"written: {path}")
    if not args.dry_run:
        print(f"next: cd {folder}, and what README.md says")
    return 0


def ask() -> tuple[SiteAnswers | None, str]:
    """What Slurm says of this site, and a line about it; None where there is no Slurm or no answer."""
    import shutil

    from pipeline.jobs.slurm.site import ask_site

    if shutil.which("scontrol") is None:
        return None, "there is no Slurm here: the cluster file is of this machine"
    try:
        site = ask_site()
    except ValueError as error:
        return None, (
            f"Slurm does not answer ({error}): the cluster file is of this machine; "
            "on a login node delete it and run this again"
        )
    return site, f"Slurm answers: {site.offers[0].text()}"


if __name__ == "__main__":
    run_command(main)
