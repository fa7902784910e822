"""All parts: that they are known, what they depend on, and what becomes of figures that are not there."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.launch import run_processes
from vqprior.configs.commands import Part
from vqprior.evaluation import parts
from vqprior.evaluation.classifier import RECIPE
from vqprior.evaluation.part import FORMAT
from vqprior.evaluation.parts import PARTS, shown, tables
from vqprior.evaluation.plots import plots
from vqprior.evaluation.report import _environment, _tiles
from vqprior.evaluation.tables import markdown, text
from vqprior.runtime.run_dir import RunDir

FLAGS = ("--classifier_steps", 2, "--inference_batch", 4)
BASIC = ["format", "vqvae", "prior", "data", "precision"]


@pytest.fixture(scope="module")
def evaluated(finished_run, tmp_path_factory):
    """A finished tiny run with all its figures, and those of an archive; tests must not change it."""
    run = tmp_path_factory.mktemp("parts") / "run"
    shutil.copytree(finished_run, run)
    archive = run / "samples" / "samples.npz"
    assert run_processes(["evaluate", run, *FLAGS, "--archives", archive]).returncode == 0
    return run


def test_the_parts_are_those_that_only_takes_and_each_has_a_file():
    names = [*get_args(Part)]
    assert [*PARTS] == [part.name for part in PARTS.values()] == names
    files = {path.stem for path in Path(parts.__file__).parent.glob("*.py")} - {"__init__", "archives"}
    assert files == set(names) and len({part.key_of_metrics for part in PARTS.values()}) == len(names)


def test_what_parts_depend_on_is_kept_as_it_always_was(evaluated):
    """Else what was measured would be measured again."""
    features = ["classifier_steps", "seed", "features", "recipe", "weights"]
    expected = {
        "reconstruction": [name for name in BASIC if name != "prior"],
        "likelihood": [*BASIC, "n"],
        **{name: [*BASIC, "n", "drawing", *features] for name in ("ladder", "labels", "copies")},
    }
    for name, settings in expected.items():
        content = json.loads((evaluated / "evaluation" / f"{name}.json").read_text())
        assert [*content["asked"]] == settings, name
        assert [*content] == ["asked", "figures", "by"] and content["asked"]["format"] == FORMAT
    [archive] = (evaluated / "evaluation").glob("archive-*.json")
    assert [*json.loads(archive.read_text())["asked"]] == [
        *BASIC,
        "n",
        *features,
        "file",
        "archive",
    ]


def paths(figures: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Where each figure is, and each group of figures."""
    for name, value in figures.items():
        yield (name,)
        if isinstance(value, dict):
            yield from ((name, *rest) for rest in paths(value))


def without(figures: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """All but one of them."""
    trimmed = copy.deepcopy(figures)
    group = trimmed
    for name in path[:-1]:
        group = group[name]
    del group[path[-1]]
    return trimmed


def test_whatever_is_missing_text_and_page_are_made_without_it(evaluated):
    """As another version may leave it out: a part is not shown, a figure is a dash."""
    metrics, run = json.loads((evaluated / "metrics.json").read_text()), RunDir(evaluated)
    whole = text(tables(metrics))
    assert not [line for line in whole.splitlines() if line.endswith(" -")]
    seen = 0
    for path in paths(metrics):
        if path == ("protocol",):
            continue
        trimmed = without(metrics, path)
        printed, protocol = text(tables(trimmed)), trimmed["protocol"]
        assert all(len(figure) for _, figure in _tiles(trimmed))
        assert len([*shown(trimmed)]) == len([*shown(metrics)]) - (1 if len(path) == 1 else 0)
        if path[0] == "protocol":
            assert {*_environment(run, protocol)} == {*_environment(run, metrics["protocol"])}
        elif len(path) > 1 and printed != whole:
            seen += 1
            words = [line.split() for line in whole.splitlines()]
            changed = [line for line in printed.splitlines() if line.split() not in words]
            assert all("-" in line for line in changed), path
    assert seen > 60
    for name in ("stage1", "stage2"):
        assert {"usage", "heat"} - plots(metrics | {name: {}}).keys() in ({"usage"}, {"heat"})


def test_parts_of_which_something_is_missing_are_kept(evaluated, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    for path in (run / "evaluation").glob("*.json"):
        part = json.loads(path.read_text())
        del part["by"], part["figures"]["images"]
        path.write_text(json.dumps(part))
    archive = evaluated / "samples" / "samples.npz"
    code, printed = command("evaluate", run, *FLAGS, "--archives", archive)
    assert (
        code == 0
        and printed.count("is done") == len(PARTS) + 1
        and "reconstruction of - test images" in printed
    )
    assert json.loads((run / "metrics.json").read_text())["protocol"]["parts"]["ladder"]["by"] == {}


def test_what_is_no_part_is_measured_anew(evaluated, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    for content in (
        "[]",
        "{broken",
        "{}",
        '{"asked": {"format": 3}, "figures": {}, "by": {}}',
        '{"asked": {"format": 4}}',
    ):
        (run / "evaluation" / "reconstruction.json").write_text(content)
        code, printed = command("evaluate", run, *FLAGS, "--only", "reconstruction")
        assert code == 0 and "is done" not in printed, content


def test_figures_of_classifiers_of_another_recipe_are_marked_and_once_it_is_said_what_that_means():
    figures = {"classifier_accuracy": 0.5, "cas": {}, "images": 4, "test_images": 4}
    archive = {"images": 4, "cas": 0.5}
    metrics = {"labels": figures, "archives": {"a.npz": archive, "b.npz": archive}}
    now, earlier = {"recipe": RECIPE}, {"recipe": RECIPE - 1}
    mark, means = "(other classifiers)", "Other classifiers: another version of vqprior measured this"

    metrics["protocol"] = {"parts": {"labels": now}, "archives": {"a.npz": now, "b.npz": now}}
    assert mark not in text(tables(metrics)) and means not in text(tables(metrics))
    metrics["protocol"] = {"parts": {"labels": earlier}, "archives": {"a.npz": now, "b.npz": earlier}}
    *of_labels, of_archives = tables(metrics)
    assert len(of_labels) == 2 and all(table.title.endswith(mark) for table in of_labels)
    assert [name for name, _ in of_archives.rows] == ["a.npz", f"b.npz {mark}"]
    assert text(tables(metrics)).count(means) == markdown(tables(metrics)).count(means) == 1
    metrics["protocol"]["parts"]["labels"] = now
    assert [means in table.warning for table in tables(metrics)] == [False, False, True]


def test_an_empty_level_is_named_in_words_in_text_too():
    levels = [{"map": [2, 2], "perplexity": 3.0, "usage": 1.0, "swapped_mse": mse} for mse in (0.1, 0.2)]
    figures = {"mse": 0.1, "relative_mse": 0.9, "psnr": 10.0, "ssim": 0.5, "images": 4, "levels": levels}
    printed = " ".join(text(PARTS["reconstruction"].tables(figures)).split())
    assert "level 0 carries nothing" in printed and "--stage1.levels" in printed
    levels[0]["swapped_mse"] = 0.2
    assert "nothing" not in text(PARTS["reconstruction"].tables(figures))


@pytest.mark.parametrize("relative", [1.0, 0.99])
def test_of_a_stage_one_that_keeps_nothing_it_is_said_and_no_level_is_blamed(relative):
    levels = [{"map": [2, 2], "perplexity": 1.0, "usage": 0.1, "swapped_mse": 0.1} for _ in range(2)]
    figures = {"mse": 0.1, "relative_mse": relative, "psnr": 10.0, "ssim": 0.5, "images": 4, "levels": levels}
    printed = " ".join(text(PARTS["reconstruction"].tables(figures)).split())
    assert ("no better than one grey" in printed and "more stage1.steps" in printed) is (relative == 1.0)
    assert ("level 0 and level 1 carry nothing" in printed) is (relative < 1.0)


@pytest.mark.parametrize(("bits", "said"), [(2.5, True), (2.0, True), (1.9, False)])
def test_a_prior_that_gains_nothing_from_its_neighbours_is_called_so(bits, said):
    figures = {"bits_per_code": bits, "per_position_bits_per_code": 2.0, "images": 4}
    printed = " ".join(text(PARTS["likelihood"].tables(figures)).split())
    assert ("no better than the per-position model" in printed) is said
    assert "no better" not in text(PARTS["likelihood"].tables({}))
