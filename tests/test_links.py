"""The links and pictures of the documents lead somewhere, and every page and picture is reached by one."""

import re
from pathlib import Path

import pytest

from tests.launch import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def links(page: Path) -> list[Path]:
    """Files that a page names, links and pictures alike."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    found = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r'src="([^"]+)"', text)
    return [(page.parent / link).resolve() for link in found if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in links(page):
        assert target.exists(), target


def test_every_page_and_picture_is_shown_somewhere():
    named = {target for page in PAGES for target in links(page)}
    files = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "images").iterdir()]
    assert not {path.resolve() for path in files} - named
