"""The page needs no other file, leads from scores to runs, and shows images only when asked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import finished
import pytest
import tiny
from commands import command

from pipeline.jobs.plan import make_plan
from pipeline.report import parser


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
