"""Predict the classes and scores of new images.

python -m pipeline.predict DIR image.jpg more/images        DIR: an export, a run's folder, or a run's id
python -m pipeline.predict DIR IMAGES --csv scores.csv      --csv -: to the terminal instead of the table
python -m pipeline.predict DIR IMAGES --attention MAPS
python -m pipeline.predict DIR SCANS --by-group                a row for each patient: what headers of DICOM say
python -m pipeline.predict DIR IMAGES --by-group '^([^/]+)/'   what REGEX finds in the paths
python -m pipeline.predict DIR SHARDS --by-group               SHARDS: a folder of shards, whose index knows the groups

DICOM, NIfTI, slides and files of several pages are read as the shards of the run were: a row an image.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import flags
from pipeline.cli.shard_flags import add_format_flags, read_id_key
from pipeline.core.console import answer, hand_over, progress, run_command, visible

if TYPE_CHECKING:
    from pipeline.data.shards.transcode import ShardSettings
    from pipeline.models.contents import Contents
    from pipeline.models.info import ModelInfo
    from pipeline.models.predict import Prediction, Skipped

FORMAT_FLAGS = "frames slices axis window tiles tile_side tile_overlap tiles_most allow_burned_in".split()
"""The fields of `Reading`."""


def parser() -> argparse.ArgumentParser:
    out = flags.described("predict", __doc__, as_json="classes and scores of each image or group, and what was skipped")
    add = out.add_argument
    add("network", metavar="DIR_OR_RUN", help="an export's folder, a fine-tuning run's folder, or a part of its id")
    add("images", metavar="IMAGE", nargs="+", type=Path, help="files, folders with everything below them, or shards")
    add("--csv", metavar="FILE", help="write image, predicted classes and the score of each class; - for the terminal")
    add("--calibrated", action="store_true", help="give probabilities, by the temperature fitted on validation images")
    add("--attention", type=Path, metavar="DIR", help="draw each image with a Vision Transformer's attention, as PNG")
    add(
        "--by-group",
        nargs="?",
        const="",
        metavar="REGEX",
        help="a row for each patient or lesion: what REGEX finds in a path; without REGEX what headers or shards say",
    )
    add("--bits", type=int, help="16-bit grey images hold values of so many bits (default: as the run's shards, or 16)")
    add("--list", type=Path, metavar="FILE", help="write which row is which file; of DICOM no other output names files")
    flags.add_cluster_flag(out)
    add_format_flags(out, title="a hospital's own files (default: as the run's shards)")
    out.set_defaults(**dict.fromkeys(FORMAT_FLAGS))
    return out


def main() -> int:
    args = flags.given(parser())
    from pipeline.core import files
    from pipeline.data import images
    from pipeline.data.shards.remote import copy_small_files
    from pipeline.models import contents, groups, inputs, network, predict
    from pipeline.models.info import temperature_text
    from pipeline.runs.cluster import load_cluster

    images.check_bits(args.bits)
    site = load_cluster(args.cluster)
    copy_small_files(site.shards_from, Path(site.shards))
    shards = inputs.find_shards(args.images)
    if shards and (args.attention or args.list):
        raise ValueError("--attention draws files and --list names them; give image files instead of shards")
    classifier = network.open_classifier(args.network, site)
    info = classifier.info.with_prepared(Path(site.shards))
    settings = contents.settings_for(info, {name: getattr(args, name) for name in FORMAT_FLAGS})
    given = contents.Contents() if shards else read_files(args, info, settings)
    grouping = None
    if args.by_group is not None:
        grouping = groups.find(args.network, args.by_group, shards, given, args.images, site)
    if shards:
        total = len(shards.rows["key"])
        work = predict.predictions_of_shards(classifier, shards, site, calibrated=args.calibrated)
    else:
        total = len(given.images)
        bits = bits_of(args, settings)
        work = predict.predictions(classifier, given.images, args.attention, settings, bits, calibrated=args.calibrated)
    found = list(progress(work, total=total, what="predicting"))
    predicted = [each for each in found if isinstance(each, predict.Prediction)]
    skipped = [predict.Skipped(*each) for each in given.skipped]
    skipped += [each for each in found if isinstance(each, predict.Skipped)]
    if grouping is not None:
        print(grouping.text(calibrated=args.calibrated), file=sys.stderr)
        rows = groups.by_group(predicted, grouping, info)
        csv, shown = groups.as_csv(rows, info.classes), groups.as_table(rows, info.classes)
        told = {"rule": grouping.choice.rule, "groups": groups.as_json(rows, info.classes)}
    else:
        csv, shown = predict.as_csv(predicted, info.classes), predict.as_table(predicted, info.classes)
        told = {"images": predict.as_json(predicted, info.classes)}
    answer({**told, "skipped": [{"image": each.name, "reason": each.reason} for each in skipped]})
    if args.csv == "-":
        hand_over(csv)
    elif predicted:
        print(shown)
    if args.csv and args.csv != "-":
        files.write_text(Path(args.csv), csv)
        print(f"written: {args.csv}")
    if args.list:
        lines = [f"{visible(name)}\t{visible(path)}\n" for name, path in given.real.items()]
        files.write_text(args.list, "".join(lines))
    if args.calibrated:
        print(temperature_text(args.network, info, Path(site.runs)), file=sys.stderr)
    say(args, predicted, skipped, [*contents.differences(info, settings), *given.notes], bits_of(args, settings))
    return 1 if skipped else 0


def read_files(args: argparse.Namespace, info: ModelInfo, settings: ShardSettings | None) -> Contents:
    """The images in the files that are named; raises `ValueError` where there is none, or for another key of ids."""
    from pipeline.data.shards.raw import new_secret
    from pipeline.models import contents, inputs

    paths = inputs.find_images(args.images, settings)
    if not paths:
        raise ValueError(f"there is no image in {', '.join(map(str, args.images))}")
    secret = new_secret(read_id_key(args.id_key))
    out = contents.read(paths, settings, secret, workers=len(os.sched_getaffinity(0)), progress=progress)
    contents.check_key(out, info, secret)
    return out


def bits_of(args: argparse.Namespace, settings: ShardSettings | None) -> int | None:
    return args.bits if args.bits is not None or settings is None else settings.bits


def say(
    args: argparse.Namespace, predicted: list[Prediction], skipped: list[Skipped], notes: list[str], bits: int | None
) -> None:
    """What a person is to know next to the scores."""
    from pipeline.data.shards.observed import range_hint
    from pipeline.models.contents import remarks

    if args.attention and predicted:
        print(f"attention maps: {args.attention}", file=sys.stderr)
    peaks = [each.peak for each in predicted if each.peak is not None]
    hint = range_hint(len(peaks), max(peaks, default=0), bits)
    for line in (*([hint] if hint else []), *remarks(each.remarks for each in predicted), *notes):
        print(visible(line), file=sys.stderr)
    for skip in skipped:
        print(f"skipped: {visible(skip.name)} {visible(skip.reason)}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
