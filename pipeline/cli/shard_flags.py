"""The flags of `pipeline.shard` that say how a user's own images are to be read."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.data.formats.reading import Reading
    from pipeline.data.layouts.options import Options


def add_layout_flags(out: argparse.ArgumentParser) -> None:
    """The flags that say how a user's own images are to be read, the fields of `Options`."""
    group = out.add_argument_group("your own images")
    add = group.add_argument
    add(
        "--layout",
        choices=("folder", "csv", "dicom", "webdataset"),
        help="one folder a class; a CSV; DICOM, whose headers say what belongs together; or tar shards",
    )
    add("--labels", type=Path, metavar="FILE", help="a CSV whose rows name patients, studies, series or images (dicom)")
    add("--path-column", metavar="NAME", help="the column of the images' paths (csv)")
    add("--label-column", metavar="NAME", help="the column of the labels (csv)")
    add("--group-column", metavar="NAME", help="the column of the patients or lesions (csv)")
    add("--split-column", metavar="NAME", help="the column of the splits (csv)")
    add("--classes", metavar="A,B", help="the columns of 0 and 1 that are classes; a name may hold * (csv)")
    add("--encoding", metavar="NAME", help="how the CSV is encoded if it is not UTF-8, such as cp1252 (csv)")
    add("--keep-na", action="store_true", help="nan, None, N/A and the like are classes, not missing labels (csv)")
    add(
        "--similar-classes",
        choices=("together", "apart"),
        help="whether classes whose names differ in case or blanks alone are one",
    )
    add("--group-from", metavar="REGEX", help="the patient or lesion is what REGEX finds in a file's path")
    add("--masks", choices=("leave-out", "keep"), help="whether files that look like masks are samples")
    add(
        "--leave-out",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave out files and folders by their paths in DIR; may be given several times",
    )
    add(
        "--tars",
        action="append",
        default=[],
        metavar="PATTERN",
        help="tars as paths in DIR, or addresses (http, s3, pipe:COMMAND) that are fetched to it; {00..10} and {a,b} "
        "mean several; may be given several times (webdataset; default: all in DIR)",
    )
    add("--image-member", metavar="END", help="how the image of a sample ends: jpg, left.png (webdataset)")
    for name in ("label", "group", "split"):
        default = "; default: cls" if name == "label" else ""
        add(
            f"--{name}-member", metavar="END", help=f"where its {name} is: cls, txt or json:FIELD (webdataset{default})"
        )


def add_format_flags(out: argparse.ArgumentParser, *, title: str = "a hospital's own files") -> None:
    """The flags that say how files of several images and DICOM are to be read, the fields of `Reading`."""
    group = out.add_argument_group(title)
    add = group.add_argument
    add("--frames", metavar="WHICH", help="of multi-page TIFF, animations, DICOM: all, middle, every=N (DICOM: all)")
    add("--slices", metavar="WHICH", help="of NIfTI volumes: all, middle, every=N, nonblank")
    add("--axis", default="axial", metavar="PLANE", help="of the slices: axial, coronal, sagittal (default: axial)")
    add(
        "--window",
        metavar="HOW",
        help="DICOM and NIfTI: stored, voi (the file's own), C,W or percentiles=LOW,HIGH (default: by modality)",
    )
    add("--tiles", metavar="HOW", help="cut slides into tiles at micrometres a pixel, mpp=0.5, or at a level, level=0")
    add("--tile-side", type=int, default=256, metavar="N", help="of a tile in pixels at that resolution (default: 256)")
    add("--tile-overlap", type=int, default=0, metavar="N", help="pixels that neighbouring tiles share (default: 0)")
    add("--tiles-most", type=int, metavar="N", help="tiles of a slide at most, drawn with a fixed seed")
    add("--allow-burned-in", action="store_true", help="take DICOM that says that text is burnt into its pixels")
    add(
        "--id-key",
        type=Path,
        metavar="FILE",
        help="hash ids of patients and images with the key in FILE: the same patient then has the same group elsewhere",
    )


def reading_of(args: argparse.Namespace) -> Reading:
    """The choices of the format flags."""
    from pipeline.data.formats.reading import Reading

    return Reading(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Reading)})


def read_id_key(path: Path | None) -> bytes | None:
    """The key in a file; raises `ValueError` for one that is easily guessed."""
    if path is None:
        return None
    key = path.read_bytes().strip()
    if len(key) < 16:
        raise ValueError(f"{path} has {len(key)} bytes; a key has at least 16: head -c 32 /dev/urandom | base64 > FILE")
    return key


def layout_options(args: argparse.Namespace) -> Options:
    """The options of the layout flags."""
    from pipeline.data.layouts.options import Options

    names = {field.name for field in dataclasses.fields(Options)} - {"volumes"}
    given = {name: getattr(args, name) for name in names} | {"volumes": args.slices is not None}
    classes = tuple(name for name in (args.classes or "").split(",") if name.strip())
    return Options(**{**given, "classes": classes, "leave_out": tuple(args.leave_out), "tars": tuple(args.tars)})
