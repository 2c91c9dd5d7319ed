"""Predict the classes and scores of new images.

python -m pipeline.predict DIR image.jpg more/images        DIR: an export, a run's folder, or a run's id
python -m pipeline.predict DIR IMAGES --csv scores.csv      --csv -: to the terminal instead of the table
python -m pipeline.predict DIR IMAGES --attention MAPS
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.cli import flags
from pipeline.core.console import progress, run_command, visible


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.predict", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    add = out.add_argument
    add("network", metavar="DIR_OR_RUN", help="an export's folder, a fine-tuning run's folder, or a part of its id")
    add("images", metavar="IMAGE", nargs="+", type=Path, help="files, or folders with everything below them")
    add("--csv", metavar="FILE", help="write image, predicted classes and the score of each class; - for the terminal")
    add("--calibrated", action="store_true", help="give probabilities, by the temperature fitted on validation images")
    add("--attention", type=Path, metavar="DIR", help="draw each image with a Vision Transformer's attention, as PNG")
    add("--bits", type=int, help="16-bit grey images hold values of so many bits, as with shard (default: all 16)")
    flags.add_cluster_flag(out)
    return out


def main() -> int:
    args = parser().parse_args()
    from pipeline.core import files
    from pipeline.data import images
    from pipeline.data.shards.observed import range_hint
    from pipeline.models import inputs, network, predict
    from pipeline.runs.cluster import load_cluster

    images.check_bits(args.bits)
    paths = inputs.find_images(args.images)
    if not paths:
        raise ValueError(f"there is no image in {', '.join(map(str, args.images))}")
    classifier = network.open_classifier(args.network, load_cluster(args.cluster))
    classes = classifier.info.classes
    each_file = predict.predictions(classifier, paths, args.attention, args.bits, calibrated=args.calibrated)
    found = list(progress(each_file, total=len(paths), what="predicting"))
    predicted = [each for each in found if isinstance(each, predict.Prediction)]
    skipped = [each for each in found if isinstance(each, predict.Skipped)]
    if args.csv == "-":
        print(predict.as_csv(predicted, classes), end="")
    elif predicted:
        print(predict.as_table(predicted, classes))
    if args.csv and args.csv != "-":
        files.write_text(Path(args.csv), predict.as_csv(predicted, classes))
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
