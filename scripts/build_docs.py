#!/usr/bin/env python3
# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The API reference from the docstrings as a folder of HTML, and whether every link of the repository leads somewhere.

    python scripts/build_docs.py --out out/docs     # the extra `docs` brings what it needs
    python scripts/build_docs.py --links            # only the links of the Markdown files, in a second

Exit code 1, and one line per link, when a page or a Markdown file links to a file or a heading that is not there.
Addresses in the web are not visited.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
# Modules that the reference shows as far as they import here: (package, what it needs).
PACKAGES = (("seg3d_core", ()), ("seg3d_ros", ("rclpy", "seg3d_interfaces")))
# Imported only where the package they adapt is installed.
LEFT_OUT = ("seg3d_core.cli.__main__",)


class Page(HTMLParser):
    """The links and the anchors of an HTML text."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


@cache
def markdown(path: Path) -> tuple[tuple[str, ...], frozenset[str]]:
    """(links, anchors) of a Markdown file; anchors as GitHub makes them of headings."""
    links: list[str] = []
    anchors: set[str] = set()
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text())
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open" and following is not None:
            anchors.add(_anchor(following.content, anchors))
        for each in [token, *(token.children or [])]:
            links += [str(each.attrs[name]) for name in ("href", "src") if name in each.attrs]
            if each.type in ("html_block", "html_inline"):
                page = Page(each.content)
                links += page.links
                anchors |= page.anchors
    return tuple(links), frozenset(anchors)


def _anchor(heading: str, taken: set[str]) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
    number, wanted = 0, anchor
    while anchor in taken:
        number += 1
        anchor = f"{wanted}-{number}"
    return anchor


@cache
def anchors_of(path: Path) -> frozenset[str] | None:
    """None for files that have none of their own."""
    if path.suffix == ".md":
        return markdown(path)[1]
    return frozenset(Page(path.read_text()).anchors) if path.suffix == ".html" else None


def broken(path: Path, links: Iterator[str] | tuple[str, ...] | list[str]) -> Iterator[str]:
    """One sentence per link of the file that leads nowhere."""
    for link in links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if target.is_dir() and (target / "index.html").exists():
            target /= "index.html"
        if not target.exists():
            yield f"{path}: {link} is not there"
        elif parts.fragment and (known := anchors_of(target)) is not None:
            anchor = unquote(parts.fragment)
            if anchor not in known and not _hidden(anchor, target):
                yield f"{path}: {link} has no such heading"


def _hidden(anchor: str, target: Path) -> bool:
    """Whether it is a name that pdoc links and never shows: a private one, or an attribute without a docstring."""
    owner, _, name = anchor.rpartition(".")
    return target.suffix == ".html" and (name.startswith("_") or (bool(owner) and owner in (anchors_of(target) or ())))


def markdown_files() -> list[Path]:
    """Those of the repository, new ones included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(path for line in listed.splitlines() if (path := ROOT / line).exists())


def broken_in_markdown() -> list[str]:
    return [text for path in markdown_files() for text in broken(path, markdown(path)[0])]


def broken_in_pages(folder: Path) -> list[str]:
    return [text for path in sorted(folder.rglob("*.html")) for text in broken(path, Page(path.read_text()).links)]


def build(out: Path) -> None:
    """Writes the reference. A module that does not import is an error, unless what it adapts is absent."""
    import warnings

    import pdoc
    import pdoc.render

    pdoc.render.configure(docformat="markdown", search=False, show_source=False)
    packages = [name for name, needs in PACKAGES if all(map(importlib.util.find_spec, (name, *needs)))]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.pdoc(*packages, *(f"!{name}" for name in LEFT_OUT), output_directory=out)
    for warning in caught:
        text = str(warning.message)
        if "Error" in text or "import" in text.lower():
            print(f"left out: {text.splitlines()[0]}", file=sys.stderr)
    print(f"{', '.join(packages)}: {len(list(out.rglob('*.html')))} pages in {out}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "docs")
    parser.add_argument("--links", action="store_true", help="check the Markdown files and build nothing")
    arguments = parser.parse_args()
    faults = broken_in_markdown()
    if not arguments.links:
        build(arguments.out)
        faults += broken_in_pages(arguments.out)
    print("\n".join(faults) if faults else f"every link of {len(markdown_files())} Markdown files leads somewhere")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
