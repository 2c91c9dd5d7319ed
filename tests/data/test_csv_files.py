"""A CSV file is read as its bytes tell, or an error says what they are and how to save it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.tables import Table, read_table

TEXT = 'image,label\na.png,"nævus, blue"\nb.png, mélanome \n'


def table(tmp_path: Path, data: bytes, *, encoding: str | None = None) -> Table:
    (tmp_path / "labels.csv").write_bytes(data)
    return read_table(tmp_path / "labels.csv", is_header={"image"}.issubset, encoding=encoding)


def cells(found: Table) -> list[list[str]]:
    return [found.header, *(list(row.values()) for _, row in found.rows)]


ROWS = [["image", "label"], ["a.png", "nævus, blue"], ["b.png", "mélanome"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiter_byte_order_mark_and_line_ends_are_seen(
    tmp_path: Path, encoding: str, delimiter: str, end: str
) -> None:
    text = TEXT.replace("image,", f"image{delimiter}").replace("png,", f"png{delimiter}").replace("\n", end)
    found = table(tmp_path, text.encode(encoding))
    assert cells(found) == ROWS
    assert [number for number, _ in found.rows] == [2, 3]


def test_excels_first_line_names_the_delimiter(tmp_path: Path) -> None:
    found = table(tmp_path, b"sep=|\r\nimage|label\r\na.png|x\r\n")
    assert cells(found) == [["image", "label"], ["a.png", "x"]]
    assert found.rows[0][0] == 3


def test_a_comma_file_stays_one_whatever_its_cells_hold(tmp_path: Path) -> None:
    assert cells(table(tmp_path, b'image,"a;b;c",d\n1.png,x;y;z;w,2\n'))[1] == ["1.png", "x;y;z;w", "2"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_another_encoding_is_never_guessed_and_can_be_said(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(
        ValueError, match=r"labels\.csv is not UTF-8 \(byte 0xe6 in line 2: .*n\\xe6vus.*save it as UTF-8"
    ):
        table(tmp_path, TEXT.encode(encoding))
    assert cells(table(tmp_path, TEXT.encode(encoding), encoding=encoding)) == ROWS


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        (TEXT.encode("utf-16-le"), None, r"has NUL bytes in its header; .*--encoding utf-16-le"),
        (b"PK\x03\x04rest", None, r"is a spreadsheet, not a CSV file; save it as CSV"),
        (b"image,a,b,a\n", None, r"has several columns called 'a'; rename or remove all but one"),
        ("image,é,e\u0301\n".encode(), None, "has several columns called 'é'"),
        (b"image,label\na.png\n", None, r"line 2: it has more or fewer cells than the header \(1, not 2\)"),
        (b"image,label\n\n\na.png,b,c\n", None, "line 4: it has more or fewer cells"),
        (b"image,label\na.png," + b"x" * 200_000 + b"\n", None, r"line 2: field larger than field limit"),
        (TEXT.encode(), "utf-16", "is not utf-16 .*correct --encoding"),
        (TEXT.encode(), "no-such", "there is no encoding 'no-such'"),
        (TEXT.encode(), "base64", "there is no encoding 'base64'"),
        (b"\xff\xfe\x00", None, "is not utf-16"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_file_and_next_move(
    tmp_path: Path, data: bytes, encoding: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        table(tmp_path, data, encoding=encoding)
    assert "\n" not in str(caught.value)


def test_a_table_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"labels\.csv cannot be read: No such file or directory"):
        read_table(tmp_path / "labels.csv", is_header=bool)


def test_columns_without_a_name_and_empty_rows_are_left_out(tmp_path: Path) -> None:
    found = table(tmp_path, b",image,Unnamed: 3,label,\n0,a.png,0,x,\n,,,,\n1,b.png,1,y,\n,,,,\n")
    assert found.header == ["image", "label"] and found.nameless == 3
    assert [(row["image"], row["label"]) for _, row in found.rows] == [("a.png", "x"), ("b.png", "y")]


def test_a_header_that_is_not_recognised_is_given_as_it_is(tmp_path: Path) -> None:
    assert table(tmp_path, b"slide;label\na.png;x;y\n").header == ["slide", "label"]
