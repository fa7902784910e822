"""What is installed is whole: a wheel samples, trains and reports from a folder that knows nothing of the
repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.conftest import TINY, write_pictures
from tests.launch import ROOT

pytestmark = pytest.mark.slow


def run(words: list[object], **options: object) -> str:
    """What a program printed; it must succeed."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=400, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this tree, built from a copy: setuptools leaves folders where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(
        ".*", "runs", "build", "*.egg-info", "__pycache__", "tests", "benchmarks", "docs"
    )
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    build = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", folder / "source", "-w", folder]
    run([sys.executable, *build], cwd=folder)
    return next(folder.glob("vqprior-*.whl"))


def test_a_wheel_holds_every_module_and_file_of_the_packages_and_one_import_name(wheel):
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == {"vqprior"}
    packages = ("app", "configs", "runtime", "sampling", "evaluation", "stage1_vqvae", "stage2_prior")
    files = [
        path
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".yaml", ".html", ".css", ".js")
    ]
    expected = {f"vqprior/{path.relative_to(ROOT)}" for path in files}
    expected |= {f"vqprior/{path.name}" for path in (ROOT / "vqprior").glob("*.py")}
    assert names == expected


def test_an_installed_wheel_samples_and_runs_a_preset_without_the_repository(wheel, tmp_path):
    run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp_path / "site", wheel],
        cwd=tmp_path,
    )
    here = tmp_path / "here"
    shutil.copytree(ROOT / "models" / "mnist", here / "digits")
    write_pictures(here / "pictures")
    # With -P neither the current folder nor that of the script is a place to import from
    options = {
        "cwd": here,
        "env": {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"},
    }
    where = "import vqprior.stage2_prior as a, vqprior.runtime.data as b; print(a.__file__, b.__file__)"
    for file in run([sys.executable, "-P", "-c", where], **options).split():
        assert Path(file).is_relative_to(tmp_path / "site")
    vqprior = [sys.executable, "-P", tmp_path / "site" / "bin" / "vqprior"]
    run([*vqprior, "sample", "digits", "--images", 3, "--out", "samples"], **options)
    run([*vqprior, "run", "folder", *TINY, "--data.root", "pictures", "--out", "run"], **options)
    assert len(list((here / "samples" / "images").iterdir())) == 3
    assert (here / "run" / "metrics.json").is_file()
