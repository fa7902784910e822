"""Two levels of codes through the commands: trained apart, drawn one after the other, completed, measured."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import TINY, write_pictures
from vqprior import Generator, Tokenizer
from vqprior.runtime.code_maps import CodeMaps
from vqprior.runtime.data.transform import prepare
from vqprior.runtime.run_dir import RunDir

FINE = [
    *("--stage1.levels", 2, "--stage1.factor", 2, "--stage2_fine.steps", 4, "--stage2_fine.batch_size", 8),
    *("--stage2_fine.channels", 8, "--stage2_fine.layers", 2, "--stage2_fine.gated_pixelcnn.head", 8),
    *("--stage2_fine.save_every", 2, "--stage2_fine.eval_every", 4, "--stage2_fine.learning_rate", 0.1),
    *("--stage2_fine.above_blocks", 2),
    *("--stage2.learning_rate", 0.1, "--stage2.average", 0.5, "--stage2_fine.average", 0.5),
    *("--sample.guidance", 2.0, "--stage2.label_dropout", 0.2, "--stage2_fine.label_dropout", 0.2),
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, pictures) -> Path:
    from vqprior.cli import main
    from vqprior.runtime import lock

    out = tmp_path_factory.mktemp("levels") / "run"
    words = ["run", "folder", *TINY, *FINE, "--data.root", pictures, "--out", out]
    assert main([*map(str, words)]) == 0
    lock.release_all()
    return out


def test_the_dump_holds_both_levels_under_one_header(run, pictures):
    maps = CodeMaps(run / "codes")
    assert [level.size for level in maps.header.levels] == [(2, 2), (4, 4)] and maps.header.format == 2
    coarse, fine = maps.split("train").codes(torch.arange(3))
    assert coarse.shape == (3, 2, 2) and fine.shape == (3, 4, 4)
    assert {"train-00000.codes.npy", "train-00000.codes1.npy"} <= maps.header.files.keys()


def test_image_i_is_image_i(run, tmp_path, command):
    """Whatever the batch, and from an export."""
    generator = Generator.from_run(run)
    images = generator.sample(7, seed=3)
    assert len(np.unique(images)) > 2
    assert np.array_equal(generator.sample(7, seed=3, batch_size=2), images)
    assert command("export", run, "--out", tmp_path / "shared")[0] == 0
    assert np.array_equal(Generator.from_run(tmp_path / "shared").sample(7, seed=3), images)
    coarse, fine = generator.encode(images)
    assert coarse.shape == (7, 2, 2) and fine.shape == (7, 4, 4)
    assert np.array_equal(generator.decode((coarse, fine)), generator.reconstruct(images))


def test_the_likelihood_is_the_sum_over_the_levels(run):
    generator = Generator.from_run(run)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (5, 2, 2)), rng.integers(0, 16, (5, 4, 4))
    expected = np.zeros(5)
    coarse, fine = (torch.from_numpy(of_level) for of_level in codes)
    labels = torch.tensor([0, 1, 1, 0, 1])
    for prior, own, above in zip(generator.networks.priors, (coarse, fine), ((), (coarse,)), strict=True):
        with torch.no_grad():
            log_p = prior(own, labels, above).double().log_softmax(1)
        expected += (log_p.gather(1, own[:, None]).sum((1, 2, 3)) / np.log(2)).numpy()
    assert np.allclose(generator.log2_prob(codes, labels.tolist()), expected, rtol=1e-5)


def test_a_mask_hides_codes_of_both_levels(run, pictures, command):
    generator, rng = Generator.from_run(run), np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.zeros((8, 8), bool)
    mask[6:, :] = True
    done = generator.complete(image, mask, n=3, labels=0)
    coarse, fine = done.known
    assert coarse.tolist() == [[True] * 2, [False] * 2]
    assert fine.tolist() == [[True] * 4] * 3 + [[False] * 4]
    assert (done.images[:, :6] == image[:6]).all()
    for known, codes in zip(done.known, done.codes, strict=True):
        assert (codes[:, known] == codes[0, known]).all()
    picture = next((pictures / "ant").iterdir())
    code, printed = command("complete", run, "--image", picture, "--hide", "lower half", "--label", "ant")
    assert code == 0 and "of 20 codes are known" in printed, printed


def test_pictures_are_scored_by_all_levels(run, pictures, tmp_path, command):
    generator, out = Generator.from_run(run), tmp_path / "found"
    code, printed = command("score", run, "--pictures", pictures / "ant", "--out", out, "--quantile", 0.3)
    assert code == 0, printed
    with np.load(out / "scores.npz") as archive:
        found = dict(archive)
    data = RunDir(run).config().data
    opened = [Image.open(pictures / "ant" / name) for name in found["names"]]
    images = np.stack([prepare(picture, data).transpose(1, 2, 0) for picture in opened])
    assert found["restored0"].shape == (12, 4, 2, 2) and found["restored1"].shape == (12, 4, 4, 4)
    of_levels = [found[f"places{level}"].sum((1, 2), dtype=np.float64) for level in (0, 1)]
    np.testing.assert_allclose(found["bits0"], of_levels[0])
    np.testing.assert_allclose(found["bits"], sum(of_levels))
    scored = generator.score(images, quantile=0.3)
    assert scored.heat.shape == images.shape[:3] and len(scored.places) == 2
    log2 = np.stack([generator.log2_prob(images, name) for name in generator.label_names])
    expected = -np.log2(np.exp2(log2).mean(0))
    np.testing.assert_allclose(scored.bits, expected, rtol=1e-5)


def test_each_level_is_measured(run, tmp_path, command):
    shutil.copytree(run, tmp_path / "run")
    code, printed = command("evaluate", tmp_path / "run", "--images", 4, "--classifier_steps", 2)
    assert code == 0, printed
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [level["map"] for level in found["stage1"]["levels"]] == [[2, 2], [4, 4]]
    levels = found["stage2"]["levels"]
    assert found["stage2"]["bits_per_image"] == pytest.approx(
        sum(level["bits_per_image"] for level in levels)
    )
    assert found["stage2"]["bits_per_code"] == pytest.approx(found["stage2"]["bits_per_image"] / 20)
    assert "true_coarse" in found["ladder"]["rows"]
    for words in ("what each level carries", "true coarsest codes, drawn finer ones", "bits of each level"):
        assert words in printed
    code, printed = command("report", tmp_path / "run")
    assert code == 0, printed
    page = (tmp_path / "run" / "report.html").read_text()
    for words in ("The codebook of level", "Stage two, level", "validation, level"):
        assert f"{words} 0" in page and f"{words} 1" in page, words
    assert page.count(">level 0</text>") == page.count(">level 1</text>") == 2  # in two plots each


def test_figures_of_another_finer_prior_are_not_shown(run, tmp_path, command):
    """As after more steps of it alone."""
    here = tmp_path / "run"
    shutil.copytree(run, here)
    assert command("evaluate", here, "--only", "likelihood")[0] == 0
    metrics = json.loads((here / "metrics.json").read_text())
    (finer,) = metrics["protocol"]["finer_priors"]

    def shown() -> bool:
        assert command("export", here, "--out", tmp_path / "out")[0] == 0
        return "None were measured" not in (tmp_path / "out" / "README.md").read_text()

    assert shown()
    del metrics["protocol"]["finer_priors"]  # as in models/clothing64
    for noted, steps, ours in (
        ({"finer_priors": [finer]}, {}, True),
        ({"finer_priors": ["of another"]}, {}, False),
        ({}, {}, True),
        ({}, {"stage2-1": 999}, False),
    ):
        protocol = metrics["protocol"] | noted | {"steps": metrics["protocol"]["steps"] | steps}
        (here / "metrics.json").write_text(json.dumps(metrics | {"protocol": protocol}))
        shutil.rmtree(tmp_path / "out")
        assert shown() == ours
        code, printed = command("report", here, "--file", tmp_path / "report.html")
        assert (code == 0) == ours and ("other weights" in printed) != ours, printed


def test_levels_are_trained_apart_and_in_any_order_bit_for_bit(run, tmp_path, pictures, command):
    shutil.copytree(run, tmp_path / "run")
    for name in ("stage2", "stage2-1"):
        shutil.rmtree(tmp_path / "run" / name)
    code, printed = command("train-prior", tmp_path / "run", "--level", 1, "--stage2_fine.steps", 2)
    assert code == 0 and not (tmp_path / "run" / "stage2").exists(), printed
    code, printed = command("sample", tmp_path / "run")
    assert code == 2 and "stage2" in printed
    code, printed = command("train-prior", tmp_path / "run", "--stage2_fine.steps", 4)
    assert code == 0, printed
    for name in ("stage2", "stage2-1"):
        ours, theirs = (
            load_file(folder / name / "step-00000004" / "average.safetensors")
            for folder in (tmp_path / "run", run)
        )
        assert ours.keys() == theirs.keys()
        if name == "stage2":  # the other one was told to end after two steps, so that its rate was another
            assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    code, printed = command("train-prior", tmp_path / "run", "--level", 2)
    assert code == 2 and "levels 0 to 1" in " ".join(printed.split())


def test_pictures_are_encoded_into_a_file_of_both_levels(run, tmp_path, pictures, command):
    code, printed = command("encode", run, "--pictures", pictures, "--out", tmp_path / "codes")
    assert code == 0, printed
    found = np.load(tmp_path / "codes" / "codes.npz")
    assert found["codes0"].shape[1:] == (2, 2) and found["codes1"].shape[1:] == (4, 4)
    assert Tokenizer.from_run(run).decode((found["codes0"], found["codes1"])).shape[1:] == (8, 8, 3)
    has_parquet = importlib.util.find_spec("pyarrow") is not None
    for ending in ("npz", "parquet") if has_parquet else ("npz",):  # one level can be imported, as it is
        file, out = tmp_path / "codes" / f"codes.{ending}", tmp_path / ending
        code, printed = command("import-codes", file, "--key", "codes1", "--out", out)
        assert code == 0 and CodeMaps(out / "codes").header.levels[0].size == (4, 4), printed


def test_a_prior_that_comes_back_from_another_copy_goes_on_under_its_own_settings(run, tmp_path, command):
    here, there = tmp_path / "here", tmp_path / "there"
    for copy in (here, there):
        shutil.copytree(run, copy)
        shutil.rmtree(copy / "stage2-1")
    steps = ["--level", 1, "--stage2_fine.steps", 2]
    code, printed = command("train-prior", there, *steps, "--stage2_fine.weight_decay", 0.5)
    assert code == 0, printed
    shutil.copytree(there / "stage2-1", here / "stage2-1")
    code, printed = command("train-prior", here)
    assert code == 2 and "stage2_fine.weight_decay is 0.5 there and" in printed, printed
    settings = here / "config.yaml"
    stage1_and_2, fine = settings.read_text().split("stage2_fine:")
    settings.write_text(f"{stage1_and_2}stage2_fine:{re.sub('weight_decay: .*', 'weight_decay: 0.5', fine)}")
    assert command("train-prior", here)[0] == 0


def test_codes_that_any_prior_has_learnt_from_are_not_replaced(run, tmp_path, command, pictures):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "stage2")
    code, printed = command("encode", tmp_path / "run", "--precision", "bf16")
    assert code == 2 and "stage2-1" in printed and "was trained on codes of another" in printed, printed


def test_a_prior_that_is_missing_is_named_with_what_to_type(run, tmp_path, command):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "stage2-1")
    for words in (["sample", tmp_path / "run"], ["export", tmp_path / "run", "--out", tmp_path / "shared"]):
        code, printed = command(*words)
        assert code == 2 and f"vqprior train-prior {tmp_path / 'run'} --level 1" in printed, printed


def test_priors_of_all_levels_begin_from_those_of_another_run(run, tmp_path, command, pictures):
    flags = [*TINY, *FINE, "--data.root", pictures, "--stage1.init", run, "--stage1.steps", 0]
    flags += ["--stage2.init", run, "--stage2_fine.init", run]
    code, printed = command("run", "folder", *flags, "--out", tmp_path / "more")
    assert code == 0 and printed.count("begins from the prior") == 2, printed
    code, printed = command(
        "run", "folder", *flags, "--stage2_fine.above_blocks", 1, "--out", tmp_path / "less"
    )
    assert code == 2 and "Type --stage2_fine.above_blocks 2 to begin" in " ".join(printed.split()), printed


def test_a_prior_that_was_stopped_before_its_first_evaluation_goes_on(run, tmp_path, command):
    """The pictures of the coarsest level, which comes first, need no finer prior."""
    shutil.copytree(run, tmp_path / "run")
    evaluated = tmp_path / "run" / "stage2-1" / "step-00000004"
    whole = load_file(evaluated / "average.safetensors")
    shutil.rmtree(evaluated)
    code, printed = command("sample", tmp_path / "run", "--out", tmp_path / "samples")
    assert code == 2 and "stage2-1" in printed, printed
    code, printed = command("train-prior", tmp_path / "run")
    assert code == 0, printed
    found = load_file(evaluated / "average.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())
