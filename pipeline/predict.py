"""Predict the classes and scores of new images.

python -m pipeline.predict DIR image.jpg more/images        DIR: an export, a run's folder, or a run's id
python -m pipeline.predict DIR IMAGES --csv scores.csv      --csv -: to the terminal instead of the table
python -m pipeline.predict DIR IMAGES --attention MAPS
python -m pipeline.predict DIR IMAGES --by-group '^([^/]+)/'   a row for each patient: what REGEX finds in the paths
python -m pipeline.predict DIR SHARDS --by-group               SHARDS: a folder of shards, whose index knows the groups
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.cli import flags
from pipeline.core.console import answer, hand_over, progress, run_command, visible


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
        help="a row for each patient or lesion: what REGEX finds in a path; of shards their groups, without REGEX",
    )
    add("--bits", type=int, help="16-bit grey images hold values of so many bits, as with shard (default: all 16)")
    flags.add_cluster_flag(out)
    return out


def main() -> int:
    args = flags.given(parser())
    from pipeline.core import files
    from pipeline.data import images
    from pipeline.data.shards.observed import range_hint
    from pipeline.models import groups, inputs, network, predict
    from pipeline.runs.cluster import load_cluster

    images.check_bits(args.bits)
    site = load_cluster(args.cluster)
    shards = inputs.find_shards(args.images)
    paths = [] if shards else inputs.find_images(args.images)
    if not paths and not shards:
        raise ValueError(f"there is no image in {', '.join(map(str, args.images))}")
    classifier = network.open_classifier(args.network, site)
    classes, grouping = classifier.info.classes, None
    if args.by_group is not None:
        grouping = groups.find(args.network, args.by_group, shards, paths, args.images, site)
    if shards:
        if args.attention:
            raise ValueError("--attention draws files; give image files instead of shards")
        total = len(shards.rows["key"])
        work = predict.predictions_of_shards(classifier, shards, site, calibrated=args.calibrated)
    else:
        total = len(paths)
        work = predict.predictions(classifier, paths, args.attention, args.bits, calibrated=args.calibrated)
    found = list(progress(work, total=total, what="predicting"))
    predicted = [each for each in found if isinstance(each, predict.Prediction)]
    skipped = [each for each in found if isinstance(each, predict.Skipped)]
    if grouping is not None:
        print(grouping.text(), file=sys.stderr)
        rows = groups.by_group(predicted, grouping, classifier.info)
        csv, shown = groups.as_csv(rows, classes), groups.as_table(rows, classes)
        told = {"rule": grouping.choice.rule, "groups": groups.as_json(rows, classes)}
    else:
        csv, shown = predict.as_csv(predicted, classes), predict.as_table(predicted, classes)
        told = {"images": predict.as_json(predicted, classes)}
    answer({**told, "skipped": [{"image": each.path, "reason": each.reason} for each in skipped]})
    if args.csv == "-":
        hand_over(csv)
    elif predicted:
        print(shown)
    if args.csv and args.csv != "-":
        files.write_text(Path(args.csv), csv)
        print(f"written: {args.csv}")
    if args.attention and predicted:
        print(f"attention maps: {args.attention}", file=sys.stderr)
    peaks = [each.peak for each in predicted if each.peak is not None]
    if (hint := range_hint(len(peaks), max(peaks, default=0), args.bits)) is not None:
        print(hint, file=sys.stderr)
    for each in skipped:
        print(f"skipped: {visible(str(each.path))} {visible(each.reason)}", file=sys.stderr)
    return 1 if skipped else 0


if __name__ == "__main__":
    run_command(main)
