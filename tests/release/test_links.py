# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Links of the Markdown files lead somewhere, and the check sees those that do not."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "build_docs.py"
NAMED_TEST = re.compile(r"\[`(test_\w+\.py)::(\w+)`\]\(([^)]+)\)")


@pytest.fixture(scope="module")
def docs():
    pytest.importorskip("markdown_it")
    spec = importlib.util.spec_from_file_location("build_docs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_link_of_the_repository_is_broken(docs):
    assert len(docs.markdown_files()) > 20
    assert docs.broken_in_markdown() == []


def test_links_to_what_is_not_there_are_found(docs, tmp_path):
    (tmp_path / "there.md").write_text("# A title, and `code`\n\n## Twice\n\n## Twice\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n\n[1](there.md) [2](there.md#a-title-and-code) [3](there.md#twice-1) [4](#here) [5](https://example.org/x)\n\n"
        '[6](gone.md) [7](there.md#gone) ![8](gone.png) [9](#gone)\n\n<img src="gone.jpg">\n'
    )
    found = [text.split(": ")[1].split()[0] for text in docs.broken(page, docs.markdown(page)[0])]
    assert sorted(found) == ["#gone", "gone.jpg", "gone.md", "gone.png", "there.md#gone"]


def test_pages_are_looked_at_too(docs, tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="b.html#gone"></a><a href="#top"></a><a href="c.html"></a>'
    )
    (tmp_path / "b.html").write_text('<p id="here"></p><a href="a.html#top"></a>')
    assert len(docs.broken_in_pages(tmp_path)) == 2


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name)
def test_tests_that_pages_name_exist(page):
    for file, name, link in NAMED_TEST.findall(page.read_text()):
        target = (page.parent / link).resolve()
        assert target.name == file, link
        assert re.search(rf"def {name}\(", target.read_text()), f"{file} has no {name}"
