"""Check raw images, runs, shards and decoded images for damage.

Raw images are compared with what is published of their dataset, the others with their checksums.

python -m pipeline.verify isic --raw DIR    reads listings and image headers, and changes nothing
python -m pipeline.verify --runs            every file of finished runs; a damaged run is marked
python -m pipeline.verify --shards          every image, label and index
python -m pipeline.verify --scratch         decoded images; damaged ones are deleted, runs decode them again

Give a folder after --runs, --shards or --scratch, else it is the cluster file's.

Exit code 0: all is as published or as written; 1: something is missing, differs or is surplus.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli import flags
from pipeline.core.console import answer, complain, counted, progress, run_command, table, visible
from pipeline.data.datasets import DATASETS

if TYPE_CHECKING:
    from pipeline.jobs.audit import Finding

PLACES = ("runs", "shards", "scratch")


def parser() -> argparse.ArgumentParser:
    out = flags.described("verify", __doc__, as_json="counts and findings")
    out.add_argument("name", nargs="?", help="isic, brain_mri, dermofit or autoimmune")
    out.add_argument("--raw", type=Path, help="the folder that holds the raw files of that dataset")
    for place in PLACES:
        out.add_argument(f"--{place}", nargs="?", const="", metavar="DIR", help=f"check the {place} folder")
    flags.add_cluster_flag(out)
    return out


def main() -> int:
    args = flags.given(parser())
    places = [place for place in PLACES if getattr(args, place) is not None]
    if (args.name is None) == (not places) or (args.name is None) != (args.raw is None):
        raise ValueError("give a dataset and --raw, or some of --runs, --shards and --scratch")
    if places:
        from pipeline.runs.cluster import load_cluster

        cluster = load_cluster(args.cluster)
        usual = {"runs": cluster.runs, "shards": cluster.shards}
        told = [
            check_place(place, Path(getattr(args, place) or usual.get(place) or cluster.scratch_folder))
            for place in places
        ]
        answer({"places": told})
        return 1 if any(each["damaged"] for each in told) else 0
    return compare(args.name, args.raw)


def check_place(place: str, folder: Path) -> dict[str, Any]:
    """Check all that is in a folder, and print what is damaged; returns what `--json` says of it."""
    from pipeline.jobs import audit

    found, check = {
        "runs": (audit.runs_under, audit.check_run),
        "shards": (audit.shards_under, audit.check_shards),
        "scratch": (audit.maps_under, audit.check_map),
    }[place]
    paths = found(folder)
    findings = list(all_findings(paths, check, f"checking {place}"))
    for finding in findings:
        tell = complain if finding.kind == "damaged" else print
        tell(f"{finding.kind:<10} {visible(finding.text)}")
    damaged = sum(finding.kind == "damaged" for finding in findings)
    print(f"{place}: {len(paths)} checked in {folder}, {damaged} damaged files")
    told = [finding._asdict() for finding in findings]
    return {"place": place, "folder": folder, "checked": len(paths), "damaged": damaged, "findings": told}


def all_findings(paths: list[Path], check: Callable[[Path], Iterable[Finding]], what: str) -> Iterable[Finding]:
    for several in progress(map(list, map(check, paths)), total=len(paths), what=what):
        yield from several


def compare(name: str, raw: Path) -> int:
    """Compare a raw folder with what is published; 1 if they differ."""
    from pipeline.data import published

    dataset = DATASETS.find(name).DATASET
    try:
        comparison = published.compare_folder(dataset, raw, progress=progress)
    except published.Incomplete as error:
        complain(f"missing    {error}")
        answer({"dataset": dataset.name, "raw": raw, "findings": [{"kind": "missing", "text": str(error)}]})
        return 1
    print(f"{dataset.name} in {raw}, compared with {dataset.published.source}\n")
    rows = [(part, label, here, "–" if known is None else known) for part, label, here, known in comparison.counts]
    print(table(rows, header=("part", "class", "here", "published")))
    print(f"\n{comparison.usable:,} of {counted(comparison.published, 'image')}")
    for kind, text in comparison.findings:
        tell = print if kind == "note" else complain
        tell(f"{kind:<10} {text}")
    print(f"\n{dataset.obtain}" if comparison.differs else "\nit is as published")
    answer(
        {
            "dataset": dataset.name,
            "raw": raw,
            "source": dataset.published.source,
            "counts": [count._asdict() for count in comparison.counts],
            "usable": comparison.usable,
            "published": comparison.published,
            "findings": [finding._asdict() for finding in comparison.findings],
            "differs": comparison.differs,
        }
    )
    return 1 if comparison.differs else 0


if __name__ == "__main__":
    run_command(main)
