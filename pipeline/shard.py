"""Resize a raw dataset once into WebDataset tars with an index.

python -m pipeline.shard isic --raw DIR
python -m pipeline.shard my_lesions --layout folder --raw DIR
python -m pipeline.shard isic --raw DIR --cluster rtx8000
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.console import progress, run_command, table
from pipeline.data.datasets import DATASETS

if TYPE_CHECKING:
    from pipeline.data.records import Dataset
    from pipeline.data.shards.transcode import Settings
    from pipeline.runs.cluster import Cluster


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.shard", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    add = out.add_argument
    names = ", ".join(DATASETS.names())
    add("name", help=f"{names}, or a name of your own with --layout")
    add("--raw", type=Path, help="the folder that holds the raw files")
    add("--layout", choices=("folder", "csv"), help="for your own images: one folder a class, or a CSV")
    add("--out", type=Path, help="parent folder of the shards (default: shards, or the cluster file's)")
    add(
        "--cluster",
        help="write the tars as Slurm jobs: a file in slurm/ by name, or a path that ends in .toml (default: here)",
    )
    add(
        "--size",
        type=int,
        default=384,
        help="side of the stored images in pixels (default: 384, paper E.2.2)",
    )
    add(
        "--split",
        choices=("image", "grouped"),
        default="image",
        help="grouped keeps a lesion or patient together",
    )
    add(
        "--format",
        choices=("jpeg", "webp", "png"),
        default="jpeg",
        help="png and webp without --quality are lossless",
    )
    add("--quality", type=int, help="1 to 100 (default: 95 for jpeg, lossless for webp)")
    add(
        "--decode",
        choices=("exact", "dct"),
        default="exact",
        help="dct: large JPEGs at a fraction of their size, faster and less exact (default: exact)",
    )
    add("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: one a core)")
    add(
        "--max-bad",
        type=float,
        default=0.01,
        help="share of unusable images that is accepted (default: 0.01)",
    )
    add("--strict", action="store_true", help="accept no unusable image")
    add("--keep-names", action="store_true", help="keys from file names, which may identify patients")
    add("--dry-run", action="store_true", help="say what would be written, write nothing")
    return out


def main() -> int:
    args = parser().parse_args()
    from pipeline.runs.cluster import Cluster, load_cluster  # not above: every worker process imports this module

    cluster = load_cluster(args.cluster) if args.cluster else Cluster()
    args.out = args.out or Path(cluster.shards)
    if cluster.executor == "local" and not args.dry_run:
        from pipeline.data import workers

        workers.prepare()  # before the imports of this process, which take as long
    from pipeline.data.layouts import Folder
    from pipeline.data.shards.transcode import Settings

    if not re.fullmatch(r"[a-z][a-z0-9_]*", args.name):
        raise ValueError(f"the dataset's name is {args.name!r}; use lower-case letters, digits and _")
    if args.workers < 1:
        raise ValueError(f"--workers is {args.workers}; give 1 or more")
    if not 0 <= args.max_bad <= 1:
        raise ValueError(f"--max-bad is {args.max_bad}; give a fraction between 0 and 1")
    if args.layout:
        if args.name in DATASETS.names():
            raise ValueError(f"{args.name!r} is a known dataset; with --layout give your images another name")
        dataset: Any = Folder(args.name, args.layout)
    elif args.name == "folder":
        raise ValueError("give your images a name of their own: pipeline.shard my_images --layout folder --raw DIR")
    elif args.name in DATASETS.names():
        dataset = DATASETS.find(args.name).DATASET
    else:
        known = ", ".join(DATASETS.names())
        raise ValueError(f"there is no dataset {args.name!r}; known: {known}; for your own add --layout folder or csv")
    settings = Settings(
        size=args.size,
        split=args.split,
        format=args.format,
        quality=args.quality,
        keep_names=args.keep_names,
        decode=args.decode,
    )
    raw = args.raw
    if raw is None and args.name == "toy":
        if args.dry_run:
            with tempfile.TemporaryDirectory() as folder:
                dataset.generate(Path(folder))
                return shard(dataset, Path(folder), settings, args, cluster)
        raw = args.out / ".raw-toy"
        dataset.generate(raw)
    elif raw is None:
        raise ValueError(f"{args.name}: give --raw the folder that holds the files. {dataset.obtain}")
    return shard(dataset, raw, settings, args, cluster)


def shard(dataset: Dataset, raw: Path, settings: Settings, args: argparse.Namespace, cluster: Cluster) -> int:
    """Write the shards of `raw`, or say what they would be or that they are there."""
    from pipeline.data.records import MARK
    from pipeline.data.shards import write
    from pipeline.data.shards.index import open_shards

    if (raw / MARK).exists():
        print(f"{raw} holds a stand-in: drawn images, not the dataset; no score on them says anything about it")
    if cluster.executor == "slurm":
        raw, args.out = raw.absolute(), args.out.absolute()  # the nodes start elsewhere
    plan = write.make_plan(dataset, raw, settings, workers=args.workers, progress=progress)
    folder = args.out / plan.folder_name
    if args.dry_run:
        tars = plan.tars()
        print(f"would write {len(plan.samples)} images in {len(tars)} tars to {folder}")
        print_bad(plan.bad, len(plan.listing.records))
        return 0
    if (folder / "manifest.json").exists():
        manifest = open_shards(folder).manifest
        write.check_bad(
            manifest["quarantined"], total=len(plan.listing.records), max_bad=args.max_bad, strict=args.strict
        )
        print(f"{folder} is complete already; nothing to do")
        print_shards(manifest)
        return 0
    if cluster.executor == "slurm":
        from pipeline.jobs.slurm import sharding

        print("\n".join(sharding.submit_missing(plan, args.out, cluster, max_bad=args.max_bad, strict=args.strict)))
        return 0
    shards = write.write(
        plan, args.out, workers=args.workers, max_bad=args.max_bad, strict=args.strict, progress=progress
    )
    print_shards(shards.manifest)
    print(f"\n{folder}")
    return 0


def print_shards(manifest: dict[str, Any]) -> None:
    """The closing table: images by class and split, leaks between splits, the quarantine."""
    counts = manifest["counts"]
    rows = [
        [name, *(counts[split][name] for split in counts)] for name in (*manifest["classes"], "unlabelled", "pictures")
    ]
    print(f"{manifest['name']}: {manifest['task']}, fingerprint {manifest['fingerprint']}\n")
    print(table(rows, header=("", *counts)))
    print(
        f"\n{manifest['test_sharing_group_with_train']} test images share a lesion or patient with a training image"
        f"\n{manifest['identical_across_splits']} files are byte-identical to one in another split"
    )
    total = sum(split["pictures"] for split in counts.values()) + len(manifest["quarantined"])
    print_bad(manifest["quarantined"], total)


def print_bad(bad: list[dict[str, str]], total: int) -> None:
    print(f"{len(bad)} of {total} quarantined")
    if bad:
        print(table([[entry["file"], entry["reason"]] for entry in bad], header=("file", "reason")))


if __name__ == "__main__":
    run_command(main)
