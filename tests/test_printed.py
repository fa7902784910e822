"""The pictures of the pages are of the commands that they print."""

import shlex

import pytest

from benchmarks import curves, tutorial
from benchmarks.printed import DOCS, commands
from tests.test_documents import blocks, commands_in

PAGES = {"curves.md": curves.PICTURES.values(), "tutorial.md": [tutorial.CURVES]}


@pytest.mark.parametrize("page", PAGES)
def test_each_command_of_a_page_is_run(page):
    lines = [line for block in blocks(DOCS / page) for line in block.lines]
    printed = [shlex.split(command) for line in lines for command in commands_in(line)]
    assert commands(DOCS / page) == [words[1:] for words in printed if words[0] == "vqprior"]


@pytest.mark.parametrize("page", PAGES)
def test_each_curve_is_of_a_run_that_the_page_makes(page):
    made = {words[words.index("--out") + 1] for words in commands(DOCS / page) if "--out" in words}
    drawn = {f"runs/{line.run}" for panels in PAGES[page] for panel in panels for line in panel.lines}
    assert drawn <= made
