"""The notebook runs top to bottom."""

from pathlib import Path

import pytest

from tests.launch import ROOT, environment

pytestmark = pytest.mark.slow

NOTEBOOK = ROOT / "notebooks" / "vqprior.ipynb"


def test_it_is_kept_without_what_it_printed():
    nbformat = pytest.importorskip("nbformat")
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_every_cell_runs(tmp_path: Path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute(env=environment(None) | {"VQPRIOR_NOTEBOOK_STEPS": "6"})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(shown) == 11
    said = "".join(output.get("text", "") for output in outputs)
    assert "codes occur" in said and "Traceback" not in said
    assert (tmp_path / "runs" / "notebook" / "samples" / "grid.png").is_file()
