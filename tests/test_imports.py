"""Imports point one way: configs <- runtime <- {stage1_vqvae, stage2_prior} <- sampling <- {evaluation,
app} <- vqprior."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "configs": set(),
    "runtime": {"configs"},
    "stage1_vqvae": {"configs", "runtime"},
    "stage2_prior": {"configs", "runtime"},
    "sampling": {"configs", "runtime", "stage1_vqvae", "stage2_prior"},
    "evaluation": {"configs", "runtime", "stage1_vqvae", "stage2_prior", "sampling"},
    "app": {"configs", "runtime", "stage1_vqvae", "stage2_prior", "sampling"},
    "vqprior": {"configs", "runtime", "stage1_vqvae", "stage2_prior", "sampling", "evaluation", "app"},
}


def imported(file: Path) -> set[str]:
    """The packages that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {_package(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            if node.module == "vqprior":  # `from vqprior import configs`
                names |= {_package(f"vqprior.{alias.name}") for alias in node.names}
            else:
                names.add(_package(node.module))
    return names


def _package(module: str) -> str:
    """The package of this project that a module lies in, or another project's top-level name."""
    top, *rest = module.split(".")
    return rest[0] if top == "vqprior" and rest and rest[0] in ALLOWED else top


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_those_below_it(package):
    for file in (ROOT / package).rglob("*.py"):
        assert imported(file) & set(ALLOWED) <= ALLOWED[package] | {package}, file


def test_nothing_below_the_stages_defines_a_network():
    """But for one that casts the weights of whatever network it is given."""
    defining = {file.name for file in (ROOT / "runtime").rglob("*.py") if "(nn.Module)" in file.read_text()}
    assert defining == {"casting.py"}


def test_the_schema_imports_no_torch():
    for file in (ROOT / "configs").glob("*.py"):
        assert "torch" not in imported(file), file
