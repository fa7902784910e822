"""The rules of ruff that this code relies on stay on, so that `ruff check .` holds them."""

import tomllib
from pathlib import Path

RUFF = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["tool"]["ruff"]


def test_lines_are_up_to_110_columns():
    assert RUFF["line-length"] == 110


def test_closures_over_loop_variables_and_zips_of_unequal_lengths_are_refused():
    lint = RUFF["lint"]
    off = [
        *lint.get("ignore", ()),
        *(rule for rules in lint.get("per-file-ignores", {}).values() for rule in rules),
    ]
    for rule in ("B023", "B905", "E501"):
        assert any(rule.startswith(chosen) for chosen in lint["select"])
        assert not any(rule.startswith(left_out) for left_out in off)
