"""Tar shards of others: samples by the library's rules, labels by flags, whatever the order; broken ones named."""

from __future__ import annotations

import io
import json
import os
import shlex
import tarfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import hospital
import numpy as np
import pytest
import small_shards
from messy import CLASSES, encoded, image_of
from small_shards import contents, plan_of, rows_of, written
from web_server import serving

from pipeline.core import files
from pipeline.data import folders, members
from pipeline.data.formats.reading import Reading
from pipeline.data.layouts import UserDataset
from pipeline.data.layouts.options import Options
from pipeline.data.layouts.tars import find_tars
from pipeline.data.layouts.webdataset_layout import META
from pipeline.data.records import Listing
from pipeline.data.shards import raw, summary, write
from pipeline.data.shards.read import read_pixels
from pipeline.data.shards.transcode import AUTO, ShardSettings, transcode

pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
Members = Sequence[tuple[str, bytes]]
PNG = ShardSettings(size=48, split="image", format="png", quality=None, keep_names=False)


def image(number: int, kind: str = "JPEG") -> bytes:
    return encoded(image_of(CLASSES[number % 3], np.random.default_rng(number)), kind)


def tar(path: Path, content: Members) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def sample(number: int) -> Members:
    """As img2dataset writes it."""
    key = f"{number:09d}"
    about = {"key": key, "caption": "a lesion", "diagnosis": CLASSES[number % 3], "patient": f"P{number % 7}"}
    return [(f"{key}.jpg", image(number)), (f"{key}.json", json.dumps(about).encode()), (f"{key}.txt", b"a lesion")]


def foreign(root: Path, tars: int = 3, each: int = 10) -> Path:
    for part in range(tars):
        numbers = range(part * each, (part + 1) * each)
        tar(root / f"{part:05d}.tar", [member for number in numbers for member in sample(number)])
    return root


def of(root: Path, **options: object) -> UserDataset:
    return UserDataset("mine", "webdataset", Options(**options))  # type: ignore[arg-type]


def listing(root: Path, **options: object) -> Listing:
    return of(root, **options).listing(root)


def test_the_layout_of_img2dataset_with_labels_and_patients_of_its_json(tmp_path: Path) -> None:
    root = foreign(tmp_path)
    found = listing(root, label_member="json:diagnosis", group_member="json:patient")
    assert found.classes == CLASSES and found.task == "multi-class" and len(found.records) == 30
    for number, record in enumerate(found.records):
        assert members.read_raw(record.path) == image(number)
        assert (record.labels, record.group) == ((CLASSES[number % 3],), f"P{number % 7}")
        assert not record.problem
    plain = listing(root)
    assert all(record.labels is None for record in plain.records)
    assert any("no sample has a member cls" in note and "jpg (30)" in note for note in plain.notes)


@pytest.mark.usefixtures("inline")
def test_neither_the_order_nor_the_names_of_tars_matter(tmp_path: Path) -> None:
    root = foreign(tmp_path / "one")
    other = tmp_path / "other"
    order = np.random.default_rng(0).permutation(30)
    tar(other / "sub" / "z.tar", [member for number in order[:4] for member in sample(number)])
    tar(other / "a.tar", [member for number in order[4:] for member in sample(number)])
    dataset = of(root, label_member="json:diagnosis")
    one, two = (plan_of(each, dataset=dataset) for each in (root, other))
    assert one.fingerprint == two.fingerprint
    shards = [written(plan, tmp_path / f"out{n}") for n, plan in enumerate((one, two))]
    told = [contents(each.folder) for each in shards]
    assert told[0].keys() == told[1].keys()
    assert all(told[0][name] == told[1][name] for name in told[0] if name != "manifest.json")
    manifests = [{k: v for k, v in each.manifest.items() if k not in ("notes", "seal")} for each in shards]
    assert manifests[0] == manifests[1]


@pytest.mark.usefixtures("inline", "small_tars")
def test_our_own_tars_give_the_same_pixels_labels_and_splits_back(tmp_path: Path) -> None:
    raw = small_shards.draw(tmp_path / "raw")
    first = written(plan_of(raw, settings=PNG), tmp_path / "first")
    dataset = of(first.folder, label_member="json:labels")
    plan = plan_of(first.folder, settings=PNG, dataset=dataset)
    second = written(plan, tmp_path / "second")
    assert "the split is how the names of the tars begin" in plan.listing.notes
    assert {record.problem for record in plan.listing.records} == {None}

    def told(shards: object) -> set[tuple[bytes, str, tuple[str, ...] | None]]:
        rows = rows_of(shards)  # type: ignore[arg-type]
        pixels = read_pixels(shards, range(len(rows)))  # type: ignore[arg-type]
        return {
            (each.tobytes(), row["split"], row["labels"] and tuple(row["labels"]))
            for each, row in zip(pixels, rows, strict=True)
        }

    assert len(told(first)) == 66 and told(first) == told(second)
    assert {row["sha256"] for row in rows_of(first)} == {row["sha256"] for row in rows_of(second)}


@pytest.mark.usefixtures("inline")
def test_what_is_broken_is_quarantined_with_its_reason_and_nothing_is_lost(tmp_path: Path) -> None:
    content = [
        *[(f"{n}.png", image(n, "PNG")) for n in range(8)],
        *[(f"{n}.cls", str(n % 2).encode()) for n in range(8)],
    ]
    good = sorted(content, key=lambda member: member[0])
    bad: Members = [
        ("x1.png", b"no image"),
        ("x1.cls", b"1"),
        ("x2.cls", b"1"),
        ("x3.jpg", image(3)),
        ("x3.png", image(3, "PNG")),
        ("x4.png", image(40, "PNG")),
        ("x4.cls", b"\xff\xfe"),
        ("x5.png", b""),
        ("__meta__/about.json", b"{}"),
        ("readme", b"about"),
        ("x6.png", image(41, "PNG")),
        ("x6.png", image(42, "PNG")),
        ("again/0.png", image(0, "PNG")),
    ]
    tar(tmp_path / "raw" / "0.tar", [*good, *bad])
    tar(tmp_path / "raw" / "1.tar", [("0.png", image(0, "PNG")), ("0.cls", b"0")])
    plan = plan_of(tmp_path / "raw", dataset=of(tmp_path / "raw"))
    shards = written(plan, tmp_path / "out", max_bad=0.5)
    reasons = {entry["file"]: entry["reason"] for entry in shards.manifest["quarantined"]}
    assert reasons.keys() == {f"0.tar/{name}" for name in ("x1.png", "x2", "x3.jpg", "x4.png", "x5.png")} | {
        "1.tar/0.png"
    }
    for name, words in {
        "0.tar/x1.png": "is no image format known here",
        "0.tar/x2": "the sample has no image; its members: cls",
        "0.tar/x3.jpg": "has several images (jpg, png); choose with --image-member",
        "0.tar/x4.png": "its member cls is no UTF-8",
        "0.tar/x5.png": "is empty",
        "1.tar/0.png": "the same image under the same name again",
    }.items():
        assert words in reasons[name]
    assert shards.manifest["passed_over"] == {
        "members that WebDataset passes over": 2,
        "second members of one name": 1,
    }
    assert len(rows_of(shards)) == 8 + 2


def test_one_image_with_two_labels_is_a_contradiction(tmp_path: Path) -> None:
    rest = [(f"{n}.{end}", data) for n in range(1, 8) for end, data in (("jpg", image(n)), ("cls", b"a"))]
    tar(tmp_path / "0.tar", [("0.jpg", image(0)), ("0.cls", b"a"), *rest])
    tar(tmp_path / "1.tar", [("0.jpg", image(0)), ("0.cls", b"b")])
    plan = plan_of(tmp_path, dataset=of(tmp_path))
    assert {entry["file"] for entry in plan.quarantined} == {"0.tar/0.jpg", "1.tar/0.jpg"}
    assert all("with another label" in entry["reason"] for entry in plan.quarantined)
    assert len(plan.samples) == 7


@pytest.mark.usefixtures("inline", "small_tars")
def test_an_interrupted_job_continues_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = foreign(tmp_path / "raw", tars=4)
    dataset = of(root, label_member="json:diagnosis", group_member="json:patient")
    calm = written(plan_of(root, dataset=dataset), tmp_path / "calm")
    for allowed in (3, 12, 13):
        with monkeypatch.context() as patched:
            count = iter(range(allowed))
            transcode = write.transcode

            def dying(task: Any, **how: Any) -> Any:
                next(count)  # noqa: B023
                return transcode(task, **how)  # noqa: B023

            patched.setattr(write, "transcode", dying)
            with pytest.raises((StopIteration, RuntimeError)):
                written(plan_of(root, dataset=dataset), tmp_path / "cut")
    cut = written(plan_of(root, dataset=dataset), tmp_path / "cut")
    assert contents(cut.folder) == contents(calm.folder)


def test_a_tar_that_breaks_off_keeps_its_samples_and_is_never_accepted_by_itself(tmp_path: Path) -> None:
    whole = foreign(tmp_path, tars=1) / "00000.tar"
    data = whole.read_bytes()
    places = [members.member_of(record.path) for record in listing(tmp_path).records]
    for cut, kept in ((places[5].offset + 100, 5), (places[5].offset - 512, 5), (len(data) // 2 + 7, None)):  # type: ignore[union-attr]
        whole.write_bytes(data[:cut])
        *rest, last = listing(tmp_path).records
        assert str(last.problem).startswith(members.UNREADABLE) and last.path == whole
        assert all(members.read_raw(record.path) == image(n) for n, record in enumerate(rest))
        assert kept is None or len(rest) == kept
        with pytest.raises(ValueError, match="1 folder or tar cannot be read, and how many images they hold"):
            written(plan_of(tmp_path, dataset=of(tmp_path)), tmp_path / "out", max_bad=0.5)
    import gzip

    whole.write_bytes(gzip.compress(data))
    (only,) = listing(tmp_path).records
    assert str(only.problem).startswith(members.UNREADABLE)


def test_links_in_tars_are_not_followed_and_names_lead_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as file:
        link = tarfile.TarInfo("secret.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
        for name in ("/etc/0.jpg", "../../1.jpg", "a/@5+6/2.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(image(1))
            file.addfile(info, io.BytesIO(image(1)))
    found = listing(tmp_path)
    assert [passed.kind for passed in found.passed_over] == ["links and devices in tars"]
    assert [members.read_raw(record.path) for record in found.records] == [image(1)] * 3
    assert all(record.path.is_relative_to(path) for record in found.records)


def test_tars_by_braces_pipes_and_the_web_are_fetched_once(tmp_path: Path) -> None:
    there = foreign(tmp_path / "there")
    dataset = {"label_member": "json:diagnosis"}
    local = plan_of(there, dataset=of(there, tars=("{00000..00002}.tar",), **dataset))
    assert len(local.listing.records) == 30
    with serving(there) as server:
        address = f"{server.address}/{{00000..00001}}.tar"
        pipe = f"pipe:cat {shlex.quote(str(there / '00002.tar'))}"
        home = tmp_path / "home"
        home.mkdir()
        remote = of(home, tars=(address, pipe), **dataset)
        assert plan_of(home, dataset=remote).fingerprint == local.fingerprint
        asked = len(server.asked)
        assert plan_of(home, dataset=remote).fingerprint == local.fingerprint
        assert len(server.asked) == asked and len(list((home / "fetched").iterdir())) == 3
        with pytest.raises(ValueError, match="cannot be fetched"):
            listing(home, tars=(f"{server.address}/none.tar",))
    with pytest.raises(ValueError, match="could not be read"):
        listing(home, tars=("pipe:exit 3",))
    assert len(list((home / "fetched").iterdir())) == 3
    with pytest.raises(ValueError, match=r"there is no tar .*00008\.tar; correct --tars"):
        listing(there, tars=("0000{8..9}.tar", "00009.tar"))


def dicom(patient: int, number: int, frames: int = 1) -> bytes:
    """A file of CT slices; all pixels differ."""
    values = np.random.default_rng([patient, number]).integers(0, 2000, (frames, 16, 16))
    ds = hospital.header("CT", patient=f"Doe{patient}", study=patient, number=number)
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    out = io.BytesIO()
    hospital.with_pixels(ds, values.astype(np.int16)[0 if frames == 1 else slice(None)]).save_as(
        out, enforce_file_format=True
    )
    return out.getvalue()


@pytest.mark.usefixtures("inline")
def test_members_that_hold_several_images_give_what_the_same_files_give(tmp_path: Path) -> None:
    """DICOM of one frame and of several, and a TIFF of three pages, in two tars and as files of a folder."""
    pages = [image_of(CLASSES[n], np.random.default_rng(n)) for n in range(3)]
    tiff = io.BytesIO()
    pages[0].save(tiff, "TIFF", save_all=True, append_images=pages[1:])
    content = {f"Doe{p}-{n}.dcm": dicom(p, n, 1 + 2 * (n == 0)) for p in range(4) for n in range(2)}
    content["pages.tif"] = tiff.getvalue()
    half = len(content) // 2
    tar(tmp_path / "tars" / "0.tar", list(content.items())[:half])
    tar(tmp_path / "tars" / "1.tar", list(content.items())[half:])
    (tmp_path / "files").mkdir()
    for name, data in content.items():
        (tmp_path / "files" / name).write_bytes(data)
    settings = replace(PNG, split=AUTO, size=16, reading=Reading(frames="all"))
    by_files = plan_of(tmp_path / "files", settings=settings, dataset=UserDataset("mine", "dicom"))
    by_tars = plan_of(tmp_path / "tars", settings=settings, dataset=of(tmp_path / "tars"))
    assert len(by_tars.samples) == 4 * 4 + 3 and by_tars.settings.split == "grouped"
    told = [{s.key: (s.checksum, s.group) for s in plan.samples} for plan in (by_files, by_tars)]
    assert told[0] == told[1]
    one, other = (written(plan, tmp_path / "out" / str(n)) for n, plan in enumerate((by_files, by_tars)))
    sums = [{row["key"]: row["sha256"] for row in rows_of(shards)} for shards in (one, other)]
    assert sums[0] == sums[1] and len(set(sums[0].values())) == 19
    said = summary.of_shards(other, by_tars) + (other.folder / "manifest.json").read_text()
    assert "Doe" not in said


def test_a_member_that_changes_while_it_is_sharded_is_not_written(tmp_path: Path) -> None:
    name = tar(tmp_path / "0.tar", [(f"{n}.dcm", dicom(n, 0, 3)) for n in range(3)])
    plan = plan_of(tmp_path, settings=replace(PNG, size=16), dataset=of(tmp_path))
    os.utime(name, ns=(0, 0))
    answers = [transcode((sample.source, plan.settings)) for sample in plan.samples]
    assert len(answers) == 9 and all("changed while the dataset was sharded" in str(answer) for answer in answers)


def test_flags_that_make_no_sense_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--label-member goes with --layout webdataset only"):
        UserDataset("mine", "folder", Options(label_member="cls"))
    with pytest.raises(ValueError, match="--path-column goes with --layout csv only"):
        UserDataset("mine", "webdataset", Options(path_column="x"))
    with pytest.raises(ValueError, match="'json' is no member with a word in it"):
        Options(label_member="json")
    with pytest.raises(ValueError, match="there is no .tar in"):
        listing(tmp_path)


def test_without_the_library_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install \"cass-pipeline\[webdataset\]\""):
        listing(foreign(tmp_path))


def test_labels_of_every_kind(tmp_path: Path) -> None:
    values = ["a", ["a", "b"], [], None, 3, True]
    tar(
        tmp_path / "0.tar",
        [
            member
            for n, value in enumerate(values)
            for member in ((f"{n}.jpg", image(n)), (f"{n}.json", json.dumps({"of": {"x": value}}).encode()))
        ],
    )
    found = listing(tmp_path, label_member="json:of.x")
    assert [record.labels for record in found.records] == [("a",), ("a", "b"), (), None, ("3",), ("true",)]
    assert found.task == "multi-label" and found.classes == ("3", "a", "b", "true")


def test_a_member_is_read_as_a_file_of_its_own(tmp_path: Path) -> None:
    path = tar(tmp_path / "0.tar", [("a.jpg", b"before"), ("b.jpg", b"0123456789"), ("c.jpg", b"behind")])
    place = listing(tmp_path).records[1].path
    with members.open_raw(place) as file:
        assert (file.read(3), file.seek(-2, io.SEEK_END), file.read(), file.read(1)) == (b"012", 8, b"89", b"")
        assert (file.seek(20), file.read(), file.seek(4), file.read(2), file.tell()) == (20, b"", 4, b"45", 6)
        with pytest.raises(ValueError, match="no place in a file"):
            file.seek(-1)
        file.seek(0)
        assert files.sha256_stream(file) == files.sha256_bytes(b"0123456789")
    path.unlink()
    with pytest.raises(FileNotFoundError):
        members.open_raw(place)


def sparse(path: Path, info: tarfile.TarInfo, size: int) -> None:
    """A tar of one member of zeros that takes no room on the disk."""
    info.size = size
    with open(path, "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(size + 4 * tarfile.BLOCKSIZE)


@pytest.mark.usefixtures("inline")
def test_a_member_of_a_terabyte_is_a_bad_file_and_the_others_are_read(tmp_path: Path) -> None:
    foreign(tmp_path, tars=1)
    sparse(tmp_path / "sparse.tar", tarfile.TarInfo("huge.png"), 1 << 40)
    plan = plan_of(tmp_path, dataset=of(tmp_path))
    assert len(plan.samples) == 10
    assert plan.quarantined == [{"file": "sparse.tar/huge.png", "reason": "cannot be read: File too large"}]


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_name_of_any_length_is_not_taken_into_memory(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("long")
    info.type = kind
    sparse(tmp_path / "0.tar", info, 1 << 33)
    (only,) = listing(tmp_path).records
    assert only.problem == f"{members.UNREADABLE}: it has a header of more than 1,048,576 bytes"


def test_names_of_names_without_end_are_a_bad_tar(tmp_path: Path) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
    (tmp_path / "0.tar").write_bytes((info.tobuf(tarfile.GNU_FORMAT) + bytes(512)) * 600)
    (only,) = listing(tmp_path).records
    assert str(only.problem).startswith(members.UNREADABLE)


@pytest.mark.usefixtures("inline")
def test_a_file_that_takes_too_much_memory_is_a_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(file: object) -> str:
        raise MemoryError

    foreign(tmp_path, tars=1)
    monkeypatch.setattr(raw.files, "sha256_stream", fails)
    plan = plan_of(tmp_path, dataset=of(tmp_path))
    assert {bad["reason"] for bad in plan.quarantined} == {"takes more memory to read than there is"}


@pytest.mark.parametrize("name", ["UP.TAR", "tar.of.mine", "shard"])
@pytest.mark.usefixtures("inline")
def test_a_tar_may_be_called_anything(tmp_path: Path, name: str) -> None:
    foreign(tmp_path, tars=1)
    one = plan_of(tmp_path, dataset=of(tmp_path))
    (tmp_path / "00000.tar").rename(tmp_path / name)
    other = plan_of(tmp_path, dataset=of(tmp_path, tars=(name,)))
    assert len(other.samples) == 10 and other.fingerprint == one.fingerprint
    assert members.shown(other.samples[0].record.path).parent == tmp_path / name
    folder = tmp_path / "x.tar" / "@5+6"
    assert members.member_of(folder / "a.png") is None


def test_members_without_a_name_and_those_left_out_are_counted(tmp_path: Path) -> None:
    kept = [(f"{n}.{ending}", image(n)) for n in range(4) for ending in ("png", "cls")]
    extra = ["x/._0.png", ".h0.png", "x.\n/c.png", "9.__bad__", "__m__/0.png", "README"]
    tar(tmp_path / "0.tar", [*kept, *((name, b"x") for name in extra), ("old/7.png", image(7)), ("8.bmp", image(8))])
    found = listing(tmp_path, label_member="json:a", leave_out=("0.tar/old", "*.bmp"))
    assert [members.shown(record.path).name for record in found.records] == [f"{n}.png" for n in range(4)]
    told = Counter(passed.kind for passed in found.passed_over)
    assert told == {folders.SYSTEM: 1, folders.HIDDEN: 1, META: 4, folders.LEFT_OUT: 2}
    with pytest.raises(ValueError, match="--leave-out 'old' fits no file"):
        listing(tmp_path, label_member="json:a", leave_out=("old",))


def test_of_two_commands_that_fetch_a_tar_the_second_waits(tmp_path: Path) -> None:
    there = foreign(tmp_path / "there", tars=1) / "00000.tar"
    (home := tmp_path / "home").mkdir()
    pipe = f"pipe:echo >> {shlex.quote(str(home / 'asked'))}; sleep 0.3; cat {shlex.quote(str(there))}"
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: find_tars(home, Options(tars=(pipe,)))[0], range(2))
    assert one == two and one[0].read_bytes() == there.read_bytes()
    assert (home / "asked").read_text() == "\n" and list((home / "fetched").iterdir()) == one
