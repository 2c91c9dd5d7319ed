"""Hooks of the site's builder: the front page from README.md, reference pages from the code, links that leave docs/."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

SITE = Path(__file__).parent
ROOT = SITE.parents[1]
sys.path.insert(0, str(SITE))

import reference  # noqa: E402  the sibling module, which no package holds

LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
DOCUMENTS = "docs/README.md"
"""The list of documents as folders show it; on the site the navigation is that list."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every command's page below the list of commands, and every decision below theirs."""
    decisions = sorted((SITE.parent / "decisions").glob("0*.md"))
    below = {
        "Commands": [f"{reference.COMMANDS_FOLDER}/{name}.md" for name in ("index", *reference.COMMANDS)],
        "Decisions": ["decisions/README.md", *(f"decisions/{path.name}" for path in decisions)],
    }
    for section in config.nav or []:
        for pages in section.values():
            for page in pages:
                if isinstance(page, dict):
                    page.update({name: below[name] for name in page if name in below})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from other files."""
    for path, text in {"index.md": front_page(), **reference.pages()}.items():
        files.append(File.generated(config, path, content=text))
    return files


def front_page() -> str:
    """README.md as the page at the top of the site: its links start in docs/, not above it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text.replace("](docs/decisions/)", "](decisions/README.md)").replace(f"[All documents]({DOCUMENTS})", "All")
    return text.replace("](docs/", "](").replace('src="docs/', 'src="')


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show what links to a file outside docs/ as the file's name, since the site has no such page."""

    def shown(match: re.Match[str]) -> str:
        text, target = match.groups()
        if "://" in target or target.startswith(("#", "mailto:")):
            return match.group(0)
        path = (ROOT / "docs" / page.file.src_uri).parent / target.partition("#")[0]
        inside = path.resolve().is_relative_to(ROOT / "docs")
        return match.group(0) if inside and not target.startswith("LICENSE") else text

    return LINK.sub(shown, markdown)
