"""Links of the pages lead somewhere, down to the heading; the first page answers what people ask."""

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_docs import PAGES, ROOT

FENCE = re.compile(r"^```.*?^```[^\n]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")
DEMANDS = 15


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def anchor(heading: str) -> str:
    """What MkDocs makes of a heading (GitHub makes the same of those that are used here)."""
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def anchors(page: Path) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


def broken(page: Path, text: str) -> Iterator[str]:
    """Links in a text of `page` that lead nowhere."""
    for target in LINK.findall(text):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, wanted = target.partition("#")
        place = page.parent / file if file else page
        if not place.exists() or (wanted and wanted not in anchors(place)):
            yield target


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *PAGES], ids=lambda page: page.stem)
def test_links_lead_to_a_page_and_a_heading(page: Path) -> None:
    assert list(broken(page, prose(page))) == []


def test_links_that_lead_nowhere_are_seen() -> None:
    text = "[a](nowhere.md) [b](people.md#nothing) [c](people.md#who-does-what) [d](#many-videos) [e](#none)"
    assert list(broken(ROOT / "docs" / "index.md", text)) == ["nowhere.md", "people.md#nothing", "#none"]


def test_each_question_has_a_page_and_a_heading() -> None:
    """The demands of users, most frequent first, each with one answer or more."""
    page = ROOT / "docs" / "index.md"
    rows = re.findall(r"^\| (\d+)\. ([^|]+\?) \| ([^|]+) \|$", prose(page), re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, DEMANDS + 1))
    for number, _, answer in rows:
        targets = LINK.findall(answer)
        assert targets and all("#" in target for target in targets), number
        assert list(broken(page, answer)) == [], number


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == [page.name for page in PAGES]
