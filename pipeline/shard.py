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

from pipeline.cli import flags
from pipeline.cli.shard_flags import add_format_flags, add_layout_flags, layout_options, read_id_key, reading_of
from pipeline.core.console import answer, counted, progress, run_command
from pipeline.data.datasets import DATASETS, find_dataset

if TYPE_CHECKING:
    from pipeline.data.records import Dataset
    from pipeline.data.shards.plan import ShardPlan
    from pipeline.data.shards.transcode import ShardSettings
    from pipeline.runs.cluster import Cluster


def parser() -> argparse.ArgumentParser:
    out = flags.described("shard", __doc__, as_json="the closing table, with the folder")
    add = out.add_argument
    names = ", ".join(DATASETS.names())
    add("name", help=f"{names}, or a name of your own with --layout")
    add("--raw", type=Path, help="the folder that holds the raw files")
    add(
        "--extend",
        type=Path,
        metavar="OLD_FOLDER",
        help="finished shards: theirs stay as they are, new images of --raw go to training; test and val never grow",
    )
    add("--out", type=Path, help="parent folder of the shards (default: shards, or the cluster file's)")
    add("--cluster", help="write the tars as Slurm jobs: a file in slurm/ by name, or a path that ends in .toml")
    add("--size", type=int, default=384, help="side of the stored images in pixels (default: 384, paper E.2.2)")
    add(
        "--split",
        choices=("image", "grouped"),
        help="grouped keeps all images of a lesion or patient, and near duplicates, in one split (default: grouped if "
        "headers of the files say which images belong together, else image)",
    )
    add(
        "--keep-leaks",
        action="store_true",
        help="grouped: keep training images with a near duplicate, or an image of their lesion or patient, in the test "
        "or val that the curator fixed",
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
    add("--bits", type=int, help="16-bit grey images hold values of so many bits, such as 12 (default: all 16)")
    add("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: one a core)")
    add("--max-bad", type=float, default=0.01, help="share of unusable images that is accepted (default: 0.01)")
    add("--strict", action="store_true", help="accept no unusable and no blank image")
    add(
        "--keep-names",
        action="store_true",
        help="make keys from file names and keep the names of groups: both then are in the tars and in index.parquet, "
        "and may identify patients",
    )
    add("--list", type=Path, metavar="FILE", help="write what became of each file, with its name, to FILE")
    add("--no-check", action="store_true", help="do not read the written tars back with the library webdataset")
    add("--dry-run", action="store_true", help="print what would be written, write nothing")
    add_layout_flags(out)
    add_format_flags(out)
    return out


def main() -> int:
    args = flags.given(parser())
    from pipeline.runs.cluster import Cluster, load_cluster  # not at the top: every worker process imports this module

    cluster = load_cluster(args.cluster) if args.cluster else Cluster()
    if cluster.executor == "local" and not args.dry_run:
        from pipeline.data import processes

        processes.start_server()  # it starts while this process does its own imports
    from pipeline.data.shards.transcode import AUTO, ShardSettings

    dataset = find_dataset(args.name, args.layout, layout_options(args))
    if args.workers < 1:
        raise ValueError(f"--workers is {args.workers}; give 1 or more")
    if not 0 <= args.max_bad <= 1:
        raise ValueError(f"--max-bad is {args.max_bad}; give a fraction between 0 and 1")
    settings = ShardSettings(
        size=args.size,
        split=args.split or AUTO,
        format=args.format,
        quality=args.quality,
        keep_names=args.keep_names,
        decode=args.decode,
        bits=args.bits,
        reading=reading_of(args),
    )
    if args.extend is not None:
        check_settings(args)
    if cluster.shards_from and args.out is None:
        raise ValueError(f"shards of {args.cluster} is an address, where nothing can be written; give --out")
    out = args.out or Path(cluster.shards)
    with raw_folder(dataset, args.raw, out, dry_run=args.dry_run) as raw:
        return shard(dataset, raw, out, settings, cluster, args)


def check_settings(args: argparse.Namespace) -> None:
    """Raise `ValueError` if a flag asks for images that are stored in another way than those that are extended."""
    from pipeline.data.shards import extend
    from pipeline.data.shards.index import open_shards

    settings = extend.settings_of(open_shards(args.extend))
    stored = {**vars(settings), **vars(settings.reading)}
    del stored["reading"]
    for name, value in stored.items():
        if getattr(args, name) not in (value, parser().get_default(name)):
            raise ValueError(
                f"--{name.replace('_', '-')} is {getattr(args, name)}, and the images of {args.extend} have {value}; "
                "omit it, or shard all images without --extend"
            )


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
    from pipeline.data.shards import quarantine, summary
    from pipeline.data.shards.extend import extended_plan
    from pipeline.data.shards.index import open_shards
    from pipeline.data.shards.plan import make_plan
    from pipeline.data.shards.write import write_shards

    if os.path.exists(raw / STANDIN_MARK):  # not what pathlib raises for a folder that may not be entered
        print(f"{raw} holds a stand-in: drawn images, not the dataset; no score on them says anything about it")
    if cluster.executor == "slurm":
        raw, out = raw.absolute(), out.absolute()  # jobs start in another folder
    limits: dict[str, Any] = {"max_bad": args.max_bad, "strict": args.strict, "check": not args.no_check}
    how: dict[str, Any] = {"workers": args.workers, "progress": progress, "keep_leaks": args.keep_leaks}
    how["id_key"] = read_id_key(args.id_key)
    if args.extend is None:
        plan = make_plan(dataset, raw, settings, **how)
    else:
        plan = extended_plan(dataset, raw, open_shards(args.extend), **how)
        if not plan.samples:
            if not args.dry_run:
                total = len(plan.listing.records)
                quarantine.check(plan.quarantined, total=total, max_bad=args.max_bad, strict=args.strict)
            print(f"{summary.of_plan(plan)}\n\nthere is nothing to add to {args.extend}; nothing to do")
            answer({"folder": args.extend, "state": "complete already", **summary.json_of_plan(plan)})
            write_list(args.list, plan, plan.quarantined)
            return 0
    folder = out / plan.folder_name
    if args.dry_run:
        print(f"would write {counted(len(plan.samples), 'image')} in {counted(len(plan.tars()), 'tar')} to {folder}")
        print(summary.of_plan(plan))
        answer({"folder": folder, "state": "planned", **summary.json_of_plan(plan)})
        write_list(args.list, plan, plan.quarantined)
        return 0
    if (folder / "manifest.json").exists():
        tell_complete(folder, plan, args)
        return 0
    if cluster.executor == "slurm":
        from pipeline.jobs.slurm import sharding

        print(summary.of_plan(plan))
        print("\n".join(sharding.submit_missing(plan, out, cluster, **limits)))
        answer({"folder": folder, "state": "sent to Slurm", **summary.json_of_plan(plan)})
        write_list(args.list, plan, plan.quarantined)
        return 0
    write_list(args.list, plan, plan.quarantined)  # also where too many cannot be used
    shards = write_shards(plan, out, workers=args.workers, progress=progress, **limits)
    print(summary.of_shards(shards, plan))
    write_list(args.list, plan, shards.manifest["quarantined"])
    print(f"\n{folder}")
    answer({"folder": folder, "state": "written", **summary.json_of_shards(shards, plan)})
    return 0


def tell_complete(folder: Path, plan: ShardPlan, args: argparse.Namespace) -> None:
    """Print what shards hold that are there already; `ValueError` where the flags accept less than is in them."""
    from pipeline.data.shards import quarantine, summary
    from pipeline.data.shards.index import open_shards
    from pipeline.data.shards.observed import Observed

    shards = open_shards(folder)
    bad, total = shards.manifest["quarantined"], len(plan.listing.records)
    quarantine.check(bad, total=total, max_bad=args.max_bad, strict=args.strict)
    quarantine.check_blank(Observed.of_json(shards.manifest).blank, total=total, strict=args.strict)
    print(f"{folder} is complete already; nothing to do")
    if not Observed.is_in(shards.manifest):
        print("an earlier version wrote it and did not look for damage; delete the folder to shard and check again")
    print(summary.of_shards(shards, plan))
    answer({"folder": folder, "state": "complete already", **summary.json_of_shards(shards, plan)})
    write_list(args.list, plan, bad)


def write_list(path: Path | None, plan: ShardPlan, quarantined: list[dict[str, str]]) -> None:
    """Write what became of each file to `path`, where one is given."""
    if path is not None:
        from pipeline.core import files
        from pipeline.data.shards import summary

        files.write_text(path, "".join(f"{line}\n" for line in summary.account(plan, quarantined)))


if __name__ == "__main__":
    run_command(main)
