"""Datasets that were read right before keep their fingerprints: those below are of the code of 26 November 2026."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import small_shards

from pipeline.data.datasets import find_dataset
from pipeline.data.datasets.isic import DATASET as ISIC
from pipeline.data.layouts import UserDataset
from pipeline.data.records import Dataset
from pipeline.data.shards.transcode import ShardSettings

NFD = unicodedata.normalize("NFD", "mélanome")


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"the bytes of {name}".encode())


def folders(root: Path) -> None:
    """Names whose order matters, class names written one odd way each, hidden files and files that are no images."""
    tops = ["nevus ", NFD, "1.0", "a b", "a-b", "Z", "unlabelled", "a/deep", "nan"]
    fill(
        root, *(f"{top}/{number}.png" for top in tops for number in (1, 2, 10)), "loose.png", "Z/.hidden.png", "Z/x.txt"
    )
    fill(root, *(f"Z/{number}_mask.png" for number in (1, 2)), "Z/no_ending", "Z/x.dcm", ".git/1.png", "z.csv")


def splits(root: Path) -> None:
    parts = ["train", "Training", "val", "TEST"]
    fill(
        root,
        *(f"{part}/{label}/{n}.jpg" for part in parts for label in "ab" for n in range(5)),
        "train/Unlabeled/1.jpg",
    )


def labels(root: Path) -> None:
    names = [f"images/{number:02d}.png" for number in range(40)]
    fill(root, *names, *(f"images/no_row_{number}.png" for number in range(5)), "a.png")
    rows = [
        f"{name},{('1.0', NFD, '', 'Benign')[n % 4]},P{n // 3},{('', 'Train', 'test')[n % 3]},{n}"
        for n, name in enumerate(names)
    ]
    rows += ["./a.png,Benign,,,7", "gone.png,Benign,P1,,7", "images/01.png,a|b,P1,,7"]
    text = "\ufeffImage, label ,patient_id,split,age\r\n" + "\r\n".join(rows) + "\r\n"
    (root / "labels.csv").write_text(text, encoding="utf-8", newline="")


def marks(root: Path) -> None:
    names = [f"{number:02d}.png" for number in range(40)]
    fill(root, *names)
    rows = [
        f"{name},{n % 2},{int(n % 3 == 0)},,L{n // 2}" if n % 7 else f"{name},,,,L{n // 2}"
        for n, name in enumerate(names)
    ]
    rows = [row.replace(",,L", ",0.0,L") if number % 7 else row for number, row in enumerate(rows)]
    (root / "table.csv").write_text("file,oedema,mass,fracture,lesion\n" + "\n".join(rows) + "\n")


def isic(root: Path) -> None:
    fill(root, *(f"ISIC_2019_Training_Input/ISIC_{number:07d}.jpg" for number in range(42)))
    truth = [
        f"ISIC_{number:07d}," + ",".join("1.0" if place == number % 9 else "0.0" for place in range(9))
        for number in range(40)
    ]
    facts = [f"ISIC_{number:07d},,,HAM_{number // 2},male" for number in range(42)]
    header = ",".join(["image", *ISIC.classes, "UNK"])
    (root / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join([header, *truth]) + "\n")
    header = "image,age_approx,anatom_site_general,lesion_id,sex"
    (root / "ISIC_2019_Training_Metadata.csv").write_text("\n".join([header, *facts]) + "\n")


def brain_mri(root: Path) -> None:
    tops = [
        f"{part}/{label}"
        for part in ("Training", "Testing")
        for label in ("glioma", "meningioma", "notumor", "pituitary")
    ]
    fill(root, *(f"{top}/{top[:2]}-{top[9:11]}_{n:04d}.jpg" for top in tops for n in range(8)))
    fill(root, "Testing/notumor/.ipynb_checkpoints/Te-no_0001-checkpoint.jpg")


def dermofit(root: Path) -> None:
    tops = ["Actinic Keratosis", "BCC", "ML", "SCC", "SK", "IEC", "PYO", "VASC", "df", "Melanoma"]
    for letter, top in zip("ABCDEFGHIJ", tops, strict=True):
        for name in [f"{letter}{number}{extra}" for number in range(3) for extra in ("a", "b")]:
            fill(root, f"{top}/{name}/{name}.png", f"{top}/{name}/{name}mask.png")


def autoimmune(root: Path) -> None:
    names = [f"{number:03d}.tif" for number in range(30)]
    fill(root, *names)
    rows = [f"{name},P{n % 7},{n % 2},{int(n % 3 == 0)},0,{int(n % 5 == 0)},1" for n, name in enumerate(names)]
    (root / "pictures.csv").write_text("image,patient,tfh1,TFH 217,TFH-Like,b_cells,Others\n" + "\n".join(rows) + "\n")


def _user(layout: str) -> Dataset:
    return UserDataset("mine", layout)


CASES = {
    "folders": (folders, _user("folder")),
    "splits": (splits, _user("folder")),
    "labels": (labels, _user("csv")),
    "marks": (marks, _user("csv")),
    "isic": (isic, ISIC),
    "brain_mri": (brain_mri, find_dataset("brain_mri", None)),
    "dermofit": (dermofit, find_dataset("dermofit", None)),
    "autoimmune": (autoimmune, find_dataset("autoimmune", None)),
}
KNOWN = {
    "folders": ("4e546dbd86ef766d", "322aa4dbcf16260b", "563c24998a717055"),
    "splits": ("a750356490accde7", "81939f137b3df1bf", "fac32344b95bff94"),
    "labels": ("6668bc0b25af6f56", "ab98bf60417b7876", "dc2130ce91bd0265"),
    "marks": ("93450a8969fcc88a", "1045e707b62bce87", "d5e7320209d8a74c"),
    "isic": ("44ad0325c4e64ac3", "0f18d6c83507b78b", "ad15d54856c13fdf"),
    "brain_mri": ("82af5e1ef30f3009", "bd4adac3bc7761f3", "78ae68e453dc0692"),
    "dermofit": ("2e8f26c2ab0aaadc", "77eb5876bc96d85b", "e32509690e54add5"),
    "autoimmune": ("f1edce16406927f7", "85e7e2653c0ce8fa", "6e33e27b839ad2ca"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_dataset_that_was_right_keeps_its_fingerprint(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By image, grouped, and with names kept. `labels` has patients in train and test, which leak when grouped."""
    small_shards.work_inline(monkeypatch)
    fill_root, dataset = CASES[name]
    fill_root(tmp_path)
    found = []
    for split, keep_names in (("image", False), ("grouped", False), ("image", True)):
        settings = ShardSettings(size=64, split=split, format="jpeg", quality=None, keep_names=keep_names)
        plan = small_shards.plan_of(tmp_path, dataset=dataset, settings=settings, keep_leaks=name == "labels")
        found.append(plan.fingerprint)
    assert tuple(found) == KNOWN[name]
