"""Predict the classes and scores of new images.

python -m pipeline.predict DIR image.jpg more/images     DIR: an export, a run's folder, or a run's id
python -m pipeline.predict DIR IMAGES --csv predict.csv     --csv -: to the terminal instead of the table
python -m pipeline.predict DIR IMAGES --attention MAPS
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import flags
from pipeline.core.console import progress, run_command, table

if TYPE_CHECKING:
    from pipeline.models.network import Network
    from pipeline.runs.cluster import Cluster


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.predict", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    add = out.add_argument
    add("network", metavar="DIR_OR_RUN", help="an export's folder, a fine-tuning run's folder, or a part of its id")
    add("pictures", metavar="PICTURE", nargs="+", type=Path, help="files, or folders with everything below them")
    add("--csv", metavar="FILE", help="write image, predicted and the score of each class; - for the terminal")
    add("--attention", type=Path, metavar="DIR", help="draw each image with where a Vision Transformer looks, as PNG")
    flags.add_cluster_flag(out)
    return out


def main() -> int:
    args = parser().parse_args()
    from pipeline.core import files
    from pipeline.models import inputs, predict
    from pipeline.runs.cluster import load_cluster

    paths = inputs.listed(args.images)
    if not paths:
        raise ValueError(f"there is no image in {', '.join(map(str, args.images))}")
    network = open_network(args.network, load_cluster(args.cluster))
    classes = network.about.classes
    found = progress(predict.scored(network, paths, args.attention), total=len(paths), what="predicting")
    good, bad = [], []
    for path, answer in zip(paths, found, strict=True):
        if isinstance(answer, ValueError):
            bad.append(f"{name_of(path)} {answer}")
        else:
            good.append((name_of(path), predict.decided(answer, network.about), answer))
    rows = [[name, *map(str, values)] for name, _, values in good]
    if args.csv:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["picture", "predicted", *(f"score:{name}" for name in classes)])
        writer.writerows([row[0], ";".join(names), *row[1:]] for row, (_, names, _) in zip(rows, good, strict=True))
    if args.csv == "-":
        print(text.getvalue(), end="")
    else:
        shown = [[name, ", ".join(names) or "–", *(f"{v:.3f}" for v in values)] for name, names, values in good]
        if shown:
            print(table(shown, header=("picture", "predicted", *classes)))
        if args.csv:
            files.write_text(Path(args.csv), text.getvalue())
            print(f"written: {args.csv}")
    if args.attention and good:
        print(f"attention maps: {args.attention}", file=sys.stderr)
    for line in bad:
        print(f"skipped: {line}", file=sys.stderr)
    return 1 if bad else 0


def open_network(text: str, cluster: Cluster) -> Network:
    """The network of an export or of a run, on the site's device; `ValueError` for one that knows no classes."""
    from pipeline.models import info
    from pipeline.runs.folder import find_run
    from pipeline.runs.spec import PretrainSpec

    folder = Path(text)
    if info.is_export(folder):
        run, known = None, info.of_export(folder)
    else:
        run = find_run(Path(cluster.runs), text)
        if isinstance(run.spec, PretrainSpec):
            raise ValueError(f"{run.id} is a pretraining run, which knows no classes; give one of its fine-tuning runs")
        known = info.of_run(run)
    if not known.classes:
        raise ValueError(f"{folder} holds a pretrained arm, which knows no classes; export one of its fine-tuning runs")

    from pipeline.models import network

    device = network.settle(cluster)
    found = network.of_export(folder, known) if run is None else network.of_run(run, known)
    found.model.to(device)
    return found


def name_of(path: Path) -> str:
    """A path that any terminal or UTF-8 file can hold."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


if __name__ == "__main__":
    run_command(main)
