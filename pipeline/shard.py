"""Resize a raw dataset once into WebDataset tars with an index.

python -m pipeline.shard isic --raw DIR
python -m pipeline.shard my_lesions --layout folder --raw DIR
python -m pipeline.shard isic --raw DIR --cluster rtx8000
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.console import progress, run_command, table
from pipeline.data.datasets import DATASETS, find_dataset

if TYPE_CHECKING:
    from pipeline.data.records import Dataset
    from pipeline.data.shards.transcode import ShardSettings
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
        help="write the tars as Slurm jobs: a file in slurm/ by name, or a path that ends in .toml",
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
        help="grouped keeps all images of a lesion or patient in one split",
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
    add("--keep-names", action="store_true", help="make keys from file names, which may identify patients")
    add("--dry-run", action="store_true", help="print what would be written, write nothing")
    return out


def main() -> int:
    args = parser().parse_args()
    from pipeline.runs.cluster import Cluster, load_cluster  # not at the top: every worker process imports this module

    cluster = load_cluster(args.cluster) if args.cluster else Cluster()
    if cluster.executor == "local" and not args.dry_run:
        from pipeline.data import workers

        workers.start_server()  # it starts while this process does its own imports
    from pipeline.data.shards.transcode import ShardSettings

    dataset = find_dataset(args.name, args.layout)
    if args.workers < 1:
        raise ValueError(f"--workers is {args.workers}; give 1 or more")
    if not 0 <= args.max_bad <= 1:
        raise ValueError(f"--max-bad is {args.max_bad}; give a fraction between 0 and 1")
    settings = ShardSettings(
        size=args.size,
        split=args.split,
        format=args.format,
        quality=args.quality,
        keep_names=args.keep_names,
        decode=args.decode,
    )
    out = args.out or Path(cluster.shards)
    with raw_folder(dataset, args.raw, out, dry_run=args.dry_run) as raw:
        return shard(dataset, raw, out, settings, cluster, args)


@contextlib.contextmanager
def raw_folder(dataset: Any, raw: Path | None, out: Path, *, dry_run: bool) -> Iterator[Path]:
    """The folder that holds the raw files; the toy's are generated, for a dry run in a temporary folder."""
    if raw is not None:
        yield raw
    elif dataset.name != "toy":
        raise ValueError(f"{dataset.name}: give --raw the folder that holds the files. {dataset.obtain}")
    elif dry_run:
        with tempfile.TemporaryDirectory() as temporary:
            dataset.generate(Path(temporary))
            yield Path(temporary)
    else:
        dataset.generate(out / ".raw-toy")
        yield out / ".raw-toy"


def shard(
    dataset: Dataset, raw: Path, out: Path, settings: ShardSettings, cluster: Cluster, args: argparse.Namespace
) -> int:
    """Write the shards of `raw` under `out`; or print what would be written, or that they are complete."""
    from pipeline.data.records import STANDIN_MARK
    from pipeline.data.shards import quarantine
    from pipeline.data.shards.index import open_shards
    from pipeline.data.shards.plan import make_plan
    from pipeline.data.shards.write import write_shards

    if (raw / STANDIN_MARK).exists():
        print(f"{raw} holds a stand-in: drawn images, not the dataset; no score on them says anything about it")
    if cluster.executor == "slurm":
        raw, out = raw.absolute(), out.absolute()  # jobs start in another folder
    plan = make_plan(dataset, raw, settings, workers=args.workers, progress=progress)
    total = len(plan.listing.records)
    folder = out / plan.folder_name
    if args.dry_run:
        print(f"would write {len(plan.samples)} images in {len(plan.tars())} tars to {folder}")
        print_quarantine(plan.quarantined, total)
        return 0
    if (folder / "manifest.json").exists():
        manifest = open_shards(folder).manifest
        quarantine.check(manifest["quarantined"], total=total, max_bad=args.max_bad, strict=args.strict)
        print(f"{folder} is complete already; nothing to do")
        print_shards(manifest)
        return 0
    if cluster.executor == "slurm":
        from pipeline.jobs.slurm import sharding

        print("\n".join(sharding.submit_missing(plan, out, cluster, max_bad=args.max_bad, strict=args.strict)))
        return 0
    shards = write_shards(plan, out, workers=args.workers, max_bad=args.max_bad, strict=args.strict, progress=progress)
    print_shards(shards.manifest)
    print(f"\n{folder}")
    return 0


def print_shards(manifest: dict[str, Any]) -> None:
    """Print the closing table: images by class and split, leaks between splits and the quarantine."""
    counts = manifest["counts"]
    keys = [*((name, name) for name in (*manifest["classes"], "unlabelled")), ("images", "pictures")]
    rows = [[name, *(counts[split][key] for split in counts)] for name, key in keys]
    print(f"{manifest['name']}: {manifest['task']}, fingerprint {manifest['fingerprint']}\n")
    print(table(rows, header=("", *counts)))
    print(
        f"\n{manifest['test_sharing_group_with_train']} test images share a lesion or patient with a training image"
        f"\n{manifest['identical_across_splits']} files are byte-identical to one in another split"
    )
    total = sum(split["pictures"] for split in counts.values()) + len(manifest["quarantined"])
    print_quarantine(manifest["quarantined"], total)


def print_quarantine(entries: list[dict[str, str]], total: int) -> None:
    print(f"{len(entries)} of {total} quarantined")
    if entries:
        print(table([[entry["file"], entry["reason"]] for entry in entries], header=("file", "reason")))


if __name__ == "__main__":
    run_command(main)
