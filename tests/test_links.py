"""The links and pictures of the documents lead somewhere, and every page and picture is reached by one."""

import re
from pathlib import Path

import pytest

from tests.launch import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.S)


def links(page: Path) -> list[Path]:
    """Files that a page names, links and pictures alike."""
    found = re.findall(r"\]\(([^)#\s]+)", prose(page)) + re.findall(r'src="([^"]+)"', prose(page))
    return [(page.parent / link).resolve() for link in found if "://" not in link]


def sections(page: Path) -> list[str]:
    """The names by which GitHub links to the page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.M)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in links(page):
        assert target.exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_a_section_lead_to_its_heading(page):
    for target, section in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", prose(page)):
        if "://" not in target:
            assert section in sections((page.parent / target) if target else page), (target, section)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_section_stands_twice(page):
    assert len(set(sections(page))) == len(sections(page))


def test_every_page_and_picture_is_shown_somewhere():
    named = {target for page in PAGES for target in links(page)}
    files = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "images").iterdir()]
    assert not {path.resolve() for path in files} - named
