"""The page needs no other file, leads from scores to runs, and shows images only when asked."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import finished
import numpy as np
import pytest
import tiny
from commands import command
from PIL import Image

from pipeline.jobs.plan import make_plan
from pipeline.report import parser
from pipeline.results import html


class Page(HTMLParser):
    """What a page refers to, and what it offers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.sources += [found[name] for name in ("src", "data", "action") if name in found]
        if "href" in found:
            (self.anchors if found["href"].startswith("#") else self.sources).append(found["href"])
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a grid of finished runs, all but two."""
    out = tmp_path_factory.mktemp("html")
    shards = tiny.make_shards(out)
    grid = finished.make_grid(out, shards)
    plan = make_plan(str(grid), tiny.make_cluster(out))
    for planned in [planned for planned in plan.runs.values() if "supervised" in planned.run.id][:2]:
        planned.run["result"].unlink()
    return out


def report(folder, *flags: str) -> str:
    done = command("report", "--grid", "mine.py", "--cluster", "here.toml", "--html", *flags, cwd=folder)
    assert done.returncode == 0, done.stderr
    return (folder / "reports" / "mine" / "report.html").read_text()


def test_the_page_needs_no_other_file_and_every_score_leads_to_its_run(folder):
    page = Page(text := report(folder))
    assert page.open == []
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources) and page.sources
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert {anchor[1:] for anchor in page.anchors} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    runs = [name for name in page.ids if name.startswith("tiny-")]
    assert len(runs) == len(list((folder / "runs").glob("*/spec.json")))
    assert 'class="value partial"' in text and 'class="value complete"' in text


def test_a_gain_is_under_its_score() -> None:
    gain = html._plain("0.746 → 0.786 (+0.040 ± 0.012, 3)", "value")
    assert (gain.text, gain.more, gain.kind) == ("0.746 → 0.786", ["+0.040 ± 0.012, 3"], "value")
    assert html._plain("resnet10t (cnn)", "label").text == "resnet10t (cnn)"


@pytest.mark.parametrize("photograph", [False, True])
def test_a_drawn_figure_keeps_every_pixel_and_a_large_photograph_nearly_all(photograph, tmp_path):
    pixels = np.zeros((600, 800, 3), dtype=np.uint8)
    pixels[200:300, 100:700] = (0, 114, 178)
    if photograph:  # grain on a slope: without loss it is above the limit
        slope = np.linspace(60, 190, 800)[None, :, None]
        pixels[:] = np.clip(slope + np.random.default_rng(0).normal(0, 6, pixels.shape), 0, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    width, address = html._embedded(tmp_path / "a.png")
    encoded = base64.b64decode(address.removeprefix("data:image/webp;base64,"))
    again = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), dtype=int)
    assert width == 800 and len(encoded) < (tmp_path / "a.png").stat().st_size / (3 if photograph else 1)
    assert abs(again - pixels).mean() < 6 if photograph else (again == pixels).all()


def test_images_are_embedded_only_when_asked(folder):
    shown = report(folder)
    listed = json.loads((folder / "reports" / "mine" / "figures" / "figures.json").read_text())
    assert not any(figure["pictures"] for figure in listed["figures"]) and listed["figures"]
    assert "Test images" not in shown
    more = report(folder, "--with-images")
    assert more.count("<figure") > shown.count("<figure")
    assert parser().parse_args(["--grid", "mine.py", "--with-pictures"]).with_images  # the old spelling of the flag


def test_text_of_a_run_cannot_become_markup(folder):
    plan = make_plan(str(folder / "mine.py"), tiny.make_cluster(folder))
    planned = next(planned for planned in plan.runs.values() if planned.state != "done")
    planned.run["error"].write_text("ValueError: <script>alert(1)</script>\n")
    text = report(folder)
    planned.run["error"].unlink()
    assert "&lt;script&gt;alert(1)" in text and "<script>alert" not in text


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed; it would sort a table")
def test_a_browser_sorts_a_table_by_a_click(folder, tmp_path):
    text = report(folder)
    click = """<script>
const table = [...document.querySelectorAll("table.sorts")].find(table => table.tBodies[0].rows.length > 2);
const heads = table.tHead.rows[0].cells; const last = heads[heads.length - 1];
last.querySelector("button").click();
const column = [...table.tBodies[0].rows].map(row => row.lastElementChild.textContent);
document.title = "SORTED " + column.join(";");
</script></body>"""
    (tmp_path / "page.html").write_text(text.replace("</body>", click))
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run".split()
    command = ["chromium", *flags, f"--user-data-dir={tmp_path / 'user'}", "--dump-dom", str(tmp_path / "page.html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    column = re.search(r"<title>SORTED ([^<]*)</title>", done.stdout)[1].split(";")
    values = [float(part.split()[0]) for part in column if part[0].isdigit()]
    assert values == sorted(values) and len(values) > 2
