"""The rules of ruff that this code relies on stay on, so that `ruff check .` holds them; and the top of the
repository is what it is meant to be."""

import subprocess
import tomllib

import pytest

from tests.launch import ROOT

RUFF = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
FOLDERS = """app benchmarks configs docs evaluation models notebooks runtime sampling stage1_vqvae
stage2_prior tests vqprior"""
FILES = "CHANGELOG.md CONTRIBUTING.md LICENSE README.md pyproject.toml"


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


def test_nothing_that_a_program_wrote_is_kept_at_the_top():
    """As `git add -A` after a benchmark would keep its figures."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tops = {name.split("/", 1)[0] for name in tracked.splitlines()}
    assert tops == {".ci", ".gitignore", *FOLDERS.split(), *FILES.split()}
