"""Every file and name on docs/maths.md exists."""

import ast
import re

import pytest

from tests.launch import ROOT

PAGE = (ROOT / "docs" / "maths.md").read_text()
PLACES = re.findall(r"`([\w/]+\.py)`: (`[\w.]+`(?:,\s`[\w.]+`(?!:))*)", PAGE)


def defined(file: str) -> set[str]:
    """The functions and classes of a file, methods as Class.method."""
    found = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


@pytest.mark.parametrize(("file", "names"), PLACES, ids=[f"{file}-{names}" for file, names in PLACES])
def test_what_is_named_is_there(file, names):
    assert {*re.findall(r"`([\w.]+)`", names)} <= defined(file)


def test_no_file_is_named_without_what_is_in_it():
    assert re.findall(r"`([\w/]+\.py)`", PAGE) == [file for file, _ in PLACES]
    assert len(PLACES) > 30
