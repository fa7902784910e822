"""docs/formats.md names every file that a run of all commands leaves behind, and the keys in them."""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TINY, write_pictures
from tests.launch import ROOT
from vqprior.cli import main
from vqprior.runtime import lock

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "formats.md").read_text()
NAMED = re.findall(r"`([^`\n]+)`", PAGE)
FINE = "--stage1.levels 2 --stage1.average 0.9 --stage2_fine.steps 4 --stage2_fine.save_every 4".split()
FINE += "--stage2_fine.eval_every 4 --stage2_fine.batch_size 8 --stage2_fine.channels 8".split()
SHARPER = "--stage1.perceptual 1 --stage1.features.steps 2 --stage1.adversarial 0.1".split()
CHECKPOINT = ("manifest.json", "model.safetensors", "average.safetensors", "optimizer.safetensors")
OF_ADVERSARY = ("adversary.safetensors", "adversary_optimizer.safetensors")
WITHIN = {
    **dict.fromkeys(("stage2/step-*/", "stage2-*/step-*/"), CHECKPOINT),
    "stage1/step-*/": (*CHECKPOINT, *OF_ADVERSARY),
    "samples/": ("samples.npz", "images/*.png", "grid.png", "samples.json", "verified.json"),
    "completions/*/": ("completions.png", "completions.npz", "completions.json"),
}
"""The folders of a run whose files stand in a table of their own."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What all commands that write into a run have written, and the codes of other pictures beside it."""
    folder = tmp_path_factory.mktemp("formats")
    pictures, run = write_pictures(folder / "pictures"), folder / "run"
    picture = pictures / "ant" / "picture0.png"
    flags = [*TINY, *FINE, *SHARPER, "--stage2.label_dropout", "0.1", "--data.root", pictures, "--out", run]
    labels = ["--images", "4", "--classifier_steps", "3"]
    for words in (
        ["run", "folder", *flags, "--data.cache", folder / "cache"],
        ["sample", run, "--images", "4", "--codes", "True", "--verify", "True"],
        ["complete", run, "--image", picture, "--hide", "lower half", "--images", "2"],
        ["evaluate", run, *labels],
        ["report", run],
        ["check", run],
        ["encode", run, "--pictures", pictures, "--out", folder / "codes"],
        ["score", run, "--pictures", pictures, "--out", folder / "scores"],
        ["export", run, "--out", folder / "shared"],
    ):
        assert main([*map(str, words)]) == 0, words
        lock.release_all()
    return folder


def patterns() -> Iterator[str]:
    """Names of files in a run, as the page has them."""
    yield from (f"{place}{name}" for place, names in WITHIN.items() for name in names)
    yield from (name for name in NAMED if re.search(r"\.(\w+|\*)$", name))


def files_in(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]


def test_it_leaves_out_no_file(folder):
    known = [*patterns()]
    for name in files_in(folder / "run"):
        assert any(fnmatch(name, pattern) for pattern in known), name
    for part in ("codes", "scores", "shared", "cache"):
        for name in files_in(folder / part):
            shown = [pattern for pattern in known if fnmatch(name, pattern)]
            assert shown, f"{part}/{name}"


def test_the_files_in_folders_of_their_own_stand_on_it():
    for place, names in WITHIN.items():
        for name in (place, *names):
            assert name in NAMED, name


def test_it_names_no_file_of_a_run_that_none_writes(folder):
    written = files_in(folder / "run")
    elsewhere = {
        "skipped.txt",
        "damaged.txt",
        "trackers.json",
        *(f"codebook/{name}" for name in ("vectors.tsv", "codes.tsv")),
    }
    elsewhere |= {"codebook/thumbnails.png"}  # of one level
    of_run = PAGE.split("## A run directory")[1].split("## A checkpoint")[0]
    of_codes = PAGE.split("## Code maps")[1].split("From Python")[0]
    shown = re.findall(r"^\|([^|]*)\|", of_run + of_codes, re.M)
    for name in re.findall(r"`([^`]+\.[\w.*?]+)`", " ".join(shown)):
        assert name in elsewhere or any(fnmatch(file, name) for file in written), name


def test_it_names_the_keys(folder):
    run = folder / "run"
    manifest = json.loads(next(run.glob("stage2/step-*/manifest.json")).read_text())
    of_stage1 = json.loads(next(run.glob("stage1/step-*/manifest.json")).read_text())
    header = json.loads((run / "codes" / "header.json").read_text())
    record = json.loads((run / "run.json").read_text())
    trees = [manifest, manifest["meta"], of_stage1["meta"], header, header["levels"][0]]
    trees += [record, record["starts"][0], json.loads((run / "metrics.json").read_text())]
    trees += [json.loads((run / "samples" / "verified.json").read_text())]
    archives = [run / "samples" / "samples.npz", folder / "codes" / "codes.npz"]
    for tree in (*trees, *map(arrays, archives)):
        assert not {*tree} - {*NAMED}


def arrays(archive: Path) -> list[str]:
    """The names of the arrays in an archive."""
    with np.load(archive) as found:
        return found.files
