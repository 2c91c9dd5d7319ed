"""Folders and tables with every kind of oddity, from a seed: nothing in them may be lost or end in a traceback.

python tests/support/odd_folders.py --count 5000 --first 0      (CI tries a few hundred: tests/data/test_odd_folders.py)
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import random
import shutil
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import small_shards
from commands import command
from mutations import damaged
from PIL import Image

from pipeline.core import files
from pipeline.core.console import counted
from pipeline.data.datasets import find_dataset
from pipeline.data.layouts.options import Options
from pipeline.data.records import place
from pipeline.data.shards import plan as planning
from pipeline.data.shards import raw as raw_files
from pipeline.data.shards import write
from pipeline.data.shards.counts import counts_of

NFD = unicodedata.normalize("NFD", "mélanome")
CLASS_NAMES = [
    "benign",
    "Benign",
    "benign ",
    "mélanome",
    NFD,
    "1",
    "1.0",
    "01",
    "images",
    "unlabelled",
    "pictures",
    "x",
]
CLASS_NAMES += ["classes", "nan", "None", "train", "masks", "=cmd", "a|b", "two\nlines", "red\x1b[31m", "y", "z"]
CLASS_NAMES += [os.fsdecode(b"caf\xe9"), "\u202eevil", "x" * 120, "-rf", "'", '"quoted"']
STEMS = ["p1", "p2", "P1", "1", "a.b", "a b", " lead", "trail ", "p1_mask", "p2_segmentation", "é", "e\u0301", "n,o"]
STEMS += ["s;c", "t\tab", "new\nline", "esc\x1b[2J", os.fsdecode(b"\xff\xfe"), "back\\slash", ".hidden", "._fork"]
STEMS += ["%s{0}", "y" * 200]
ENDINGS = [".png"] * 8 + [".PNG", ".jpg", "", ".txt", ".nii.gz", ".mat", ".csv", ".dcm", ".tif", ".html"]
FOLDERS = ["sub", "@eaDir", ".git", "__MACOSX", "masks", "images", "deep/er", "x y", "train", "test", "val", "extra"]
TABLES = [["labels.csv"]] * 6 + [["train.csv", "test.csv"]] * 2 + [["X.CSV"], ["x.tsv"], [".h.csv"]]
PATHS = ["image"] * 5 + ["path", "file", "filename", "image_id", "Image", "picture", ""]
LABELS = ["label"] * 4 + ["class", "diagnosis", "dx", "target", "Label ", "labels"]
GROUPS = ["patient", "patient_id", "lesion_id", "group", "subject"]
EXTRA = ["age", "male", "split", "", "Unnamed: 0", "benign", "malignant", "notes", "sex", "é"]
CELLS = ["benign", "malignant", "Benign", " benign ", "", "nan", "None", "N/A", "1", "1.0", "0", "a|b", "mélanome"]
CELLS += [NFD, "=1+1", "yes", "no", "two\nlines", "x" * 3000]
SPLIT_CELLS = ["", "train", "Test", "val", "validation", "holdout", "nan", "test"]
ENCODINGS = ["utf-8"] * 12 + ["utf-8-sig", "utf-16", "latin-1", "cp1252", "utf-16-le"]
DELIMITERS = [",", ",", ",", ";", ";", "\t", "|"]


@dataclass
class Case:
    """An odd folder and the command line that it is sharded with."""

    root: Path
    layout: str
    flags: list[str] = field(default_factory=list)
    tables: set[Path] = field(default_factory=set)

    @property
    def arguments(self) -> list[object]:
        return ["odd", "--layout", self.layout, "--raw", self.root, "--size", 8, "--workers", 1, *self.flags]


def _png(rng: random.Random) -> bytes:
    pixels = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def make(root: Path, seed: int) -> Case:
    """Fill `root` with a case, always the same for a seed."""
    rng = random.Random(seed)
    case = Case(root, rng.choice(["folder", "csv"]))
    names: list[str] = []
    is_folder = case.layout == "folder"
    tops = rng.sample(CLASS_NAMES, rng.choice([1, 2, 2, 3, 3, 4])) if is_folder else [*rng.sample(FOLDERS, 2), ""]
    if is_folder and rng.random() < 0.3:
        tops = [f"{split}/{name}" for split in rng.sample(["train", "Training", "val", "test"], 2) for name in tops]
    for top in tops:
        for _ in range(rng.randint(1, 6)):
            inside = f"{rng.choice(FOLDERS)}/" if rng.random() < 0.15 else ""
            name = os.path.join(top, f"{inside}{rng.choice(STEMS)}{rng.choice(ENDINGS)}")
            names += [name] if _write(root / name, rng) else []
    for _ in range(rng.choice([0, 0, 1, 3])):
        _write_link(root, names, rng)
    if not is_folder:
        for name in rng.choice(TABLES):
            _write_table(root / name, names, rng)
    case.flags = _flags(case.layout, rng)
    return case


def _write(path: Path, rng: random.Random) -> bool:
    """Write a file if its name can be: most are images, some empty, broken or no file at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            return False
        kind = rng.random()
        if kind < 0.03:
            os.mkfifo(path)
        else:
            path.write_bytes(_png(rng) if kind < 0.8 else rng.choice([b"", b"no image", b"%!PS-Adobe", bytes(50)]))
        return True
    except OSError:  # a file where a folder is needed, or a name that is too long
        return False


def _write_link(root: Path, names: list[str], rng: random.Random) -> None:
    targets = [".", "..", "nowhere", "link.png", *(os.path.dirname(name) or "." for name in names), *names]
    where = root / (os.path.dirname(rng.choice(names)) if names and rng.random() < 0.5 else "")
    name = f"link{rng.randrange(5)}{rng.choice(['', '.png', '.txt'])}"
    if where.is_dir() and not os.path.lexists(where / name):
        os.symlink(os.path.relpath(root / rng.choice(targets), where), where / name)


def _respelled(name: str, rng: random.Random) -> str:
    ways: list[Callable[[], str]] = [
        lambda: name,
        lambda: name,
        lambda: name,
        lambda: f"./{name}",
        lambda: f"nowhere/../{name}",
        lambda: name.replace("/", "\\"),
        lambda: os.path.splitext(name)[0],
        lambda: os.path.basename(name),
        lambda: name.upper(),
        lambda: unicodedata.normalize("NFC", name),
        lambda: name + "\0",
        lambda: "",
        lambda: "..",
        lambda: "missing.png",
        lambda: f"/{name}",
        lambda: "z" * 300,
    ]
    return rng.choice(ways)()


def _write_table(path: Path, names: list[str], rng: random.Random) -> None:
    header = [rng.choice(PATHS)] + ([rng.choice(LABELS)] if rng.random() < 0.8 else ["benign", "malignant"])
    header += rng.sample(GROUPS, rng.choice([0, 0, 1, 1, 2])) + rng.sample(EXTRA, rng.choice([0, 0, 0, 1, 2]))
    rng.shuffle(header)
    few = rng.choice([["benign", "malignant", ""], ["0", "1", "1.0"], ["nævus", "mélanome"], rng.sample(CELLS, 3)])
    rows = []
    for name in rng.choices(names or ["none.png"], k=rng.randint(2, 16)):
        row = []
        for column in header:
            plain = column.strip().lower()
            if plain in PATHS:
                row.append(_respelled(name, rng))
            elif plain == "split":
                row.append(rng.choice(SPLIT_CELLS))
            elif plain in ("benign", "malignant", "male"):
                row.append(rng.choice(["0", "1", "1.0", "", "nan", "2"]))
            else:
                row.append(rng.choice(few) if rng.random() < 0.96 else rng.choice(CELLS))
        rows.append(row)
    text = io.StringIO()
    line = rng.choice(["\n", "\r\n"])
    writer = csv.writer(text, delimiter=rng.choice(DELIMITERS), lineterminator=line)
    writer.writerows([header, *rows])
    encoding = rng.choice(ENCODINGS)
    errors = "surrogateescape" if encoding == "utf-8" and rng.random() < 0.5 else "replace"
    data = text.getvalue().encode(encoding, errors)
    for _ in range(rng.choice([0, 0, 0, 0, 1, 4])):
        data = damaged(data, rng)
    path.write_bytes(data)


def _flags(layout: str, rng: random.Random) -> list[str]:
    """Flags that may or may not fit the folder."""
    options = [
        ["--masks", rng.choice(["keep", "leave-out"])],
        ["--similar-classes", rng.choice(["together", "apart"])],
        ["--leave-out", rng.choice(["*.txt", "extra", "train", "nothing", "labels.*"])],
        ["--group-from", rng.choice([r"p(\d)", "[", "(x)?", "."])],
        ["--split", "grouped"],
        ["--keep-names"],
    ]
    csv_options = [
        ["--label-column", rng.choice(LABELS)],
        ["--path-column", rng.choice(PATHS)],
        ["--group-column", rng.choice(GROUPS)],
        ["--classes", rng.choice(["benign,malignant", "b*", "nothing"])],
        ["--encoding", rng.choice(["latin-1", "utf-16", "no-such", "base64"])],
        ["--keep-na"],
    ]
    every = options + (csv_options if layout == "csv" or rng.random() < 0.02 else [])
    return [word for option in every if rng.random() < 0.05 for word in option]


def check(case: Case, home: Path) -> int:
    """Shard a case, dry and in earnest; raises `AssertionError` if a rule is broken. Returns the exit code."""
    dry = command("shard", *case.arguments, "--max-bad", 1, "--dry-run", cwd=home)
    _check_output(dry.returncode, dry.stdout, dry.stderr)
    if dry.returncode:
        return dry.returncode
    quarantined = _check_account(case, dry.stdout)
    done = command("shard", *case.arguments, "--max-bad", 1, cwd=home)
    _check_output(done.returncode, done.stdout, done.stderr)
    if done.returncode == 0:
        (manifest,) = (home / "shards").glob("*/manifest.json")
        stored = files.read_json(manifest)
        images = sum(each.images for each in counts_of(stored).values())
        assert f"{images} written, {len(stored['quarantined'])} quarantined" in done.stdout
        assert len(stored["quarantined"]) >= quarantined
        planned = counted(images + len(stored["quarantined"]) - quarantined, "image")
        assert f"would write {planned} in " in dry.stdout
    else:
        assert "not one usable image" in done.stderr, done.stderr
    return done.returncode


def _check_output(code: int, out: str, err: str) -> None:
    assert code in (0, 2), code
    assert "Traceback" not in err, err
    assert (code == 2) == err.startswith("error: "), err
    for line in (out + err).split("\n"):
        assert line.isprintable(), repr(line)
    (out + err).encode()  # no surrogates


def _check_account(case: Case, said: str) -> int:
    """Every file is written, quarantined or passed over, and none is two of them; returns how many are quarantined."""
    options = _options(case.flags)
    dataset = find_dataset("odd", case.layout, options)
    split = "grouped" if "grouped" in case.flags else "image"
    settings = small_shards.ShardSettings(
        size=8, split=split, format="jpeg", quality=None, keep_names="--keep-names" in case.flags
    )
    plan = planning.make_plan(dataset, case.root, settings, workers=1, progress=small_shards.silent)
    listing = plan.listing
    assert len(listing.records) == len(plan.samples) + len(plan.quarantined)
    found = len(listing.records) + len(listing.passed_over)
    counted = f"{found} found: {len(plan.samples)} written, {len(plan.quarantined)} quarantined"
    assert f"{counted}, {len(listing.passed_over)} passed over" in said
    known: dict[Path, str] = {}
    listed = {place(record.path, known) for record in listing.records if "\0" not in str(record.path)}
    passed = {place(passed.path, known) for passed in listing.passed_over}
    assert not listed & passed
    samples = Counter(place(sample.record.path, known) for sample in plan.samples)
    assert not samples or max(samples.values()) == 1
    tables = {".csv", ".tsv"} if case.layout == "csv" else set()
    for folder, folders, names in os.walk(case.root):
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(folder, name)) not in passed]
        for name in names + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            path = Path(folder) / name
            is_table = path.parent == case.root and path.suffix.lower() in tables
            linked = path.is_symlink() and path.is_dir()  # what is behind it is listed, or it is passed over
            assert is_table or linked or place(path, known) in listed | passed, path
    return len(plan.quarantined)


def _options(flags: list[str]) -> Options:
    import pipeline.shard

    return pipeline.shard.layout_options(pipeline.shard.parser().parse_args(["odd", *flags]))


def try_seed(seed: int) -> int:
    """Make and check the case of a seed in a folder of its own; returns the exit code."""
    home = Path(tempfile.mkdtemp(prefix="odd-"))
    try:
        (home / "raw").mkdir()
        return check(make(home / "raw", seed), home)
    except BaseException:
        print(f"seed {seed}", file=sys.stderr)
        raise
    finally:
        shutil.rmtree(home)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    setattr(raw_files, "Workers", small_shards.Inline)  # noqa: B010
    setattr(write, "Workers", small_shards.Inline)  # noqa: B010
    codes = Counter(try_seed(seed) for seed in range(args.first, args.first + args.count))
    print(f"{args.count} cases from seed {args.first}: {codes[0]} sharded, {codes[2]} refused with one line")


if __name__ == "__main__":
    main()
