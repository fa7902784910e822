"""Stage one alone, from Python: the codes are those on disk, and what is no picture of the run is refused."""

import shutil

import numpy as np
import pytest
import torch

from tests.sampling.tiny import tiny_generator
from vqprior import CodeMaps, Generator, Tokenizer, UserError
from vqprior.runtime.data import load
from vqprior.runtime.run_dir import RunDir

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 16, 20, 3), dtype=np.uint8)
CODES = RNG.integers(0, 7, (5, 4, 5))


@pytest.fixture(scope="module")
def tokenizer(finished_run) -> Tokenizer:
    return Tokenizer.from_run(finished_run)


@pytest.fixture(scope="module")
def pictures(finished_run) -> np.ndarray:
    """The test pictures of the run, uint8 [N, H, W, C]."""
    split = load(RunDir(finished_run).config().data, run=finished_run).test
    return split.images(torch.arange(len(split))).permute(0, 2, 3, 1).numpy()


def test_the_codes_are_those_that_the_command_wrote(tokenizer, finished_run, pictures):
    on_disk = CodeMaps(finished_run / "codes").split("test")
    codes = tokenizer.encode(pictures)
    assert codes.dtype == np.int64
    assert np.array_equal(codes, on_disk.codes(torch.arange(len(pictures)))[0].numpy())


def test_it_says_what_it_takes_and_gives(tokenizer, pictures):
    assert (tokenizer.K, tokenizer.map_size) == (16, (2, 2))
    assert pictures.shape[1:] == (*tokenizer.image_size, tokenizer.channels)
    codes = tokenizer.encode(pictures)
    images = tokenizer.decode(codes)
    assert codes.shape[1:] == tokenizer.map_size and 0 <= codes.min() <= codes.max() < tokenizer.K
    assert images.shape == pictures.shape and images.dtype == np.uint8


def test_a_reconstruction_is_its_codes_decoded(tokenizer, pictures):
    assert np.array_equal(tokenizer.reconstruct(pictures), tokenizer.decode(tokenizer.encode(pictures)))


def test_the_generator_has_the_same_three(tokenizer, finished_run, pictures):
    generator = Generator.from_run(finished_run)
    assert np.array_equal(generator.encode(pictures), tokenizer.encode(pictures))
    assert np.array_equal(generator.reconstruct(pictures), tokenizer.reconstruct(pictures))
    codes = tokenizer.encode(pictures)
    assert np.array_equal(generator.decode(codes), tokenizer.decode(codes))
    assert np.allclose(generator.log2_prob(pictures, 0), generator.log2_prob(codes, 0))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_an_image_does_not_depend_on_the_others(batch_size):
    tokenizer = tiny_generator().tokenizer
    codes, images = tokenizer.encode(IMAGES), tokenizer.decode(CODES)
    assert np.array_equal(tokenizer.encode(IMAGES, batch_size=batch_size), codes)
    assert np.array_equal(tokenizer.encode(IMAGES[3:4], batch_size=batch_size), codes[3:4])
    assert np.array_equal(tokenizer.decode(CODES[2:], batch_size=batch_size), images[2:])


def test_tensors_and_any_integers_will_do():
    tokenizer = tiny_generator().tokenizer
    assert np.array_equal(tokenizer.encode(torch.from_numpy(IMAGES)), tokenizer.encode(IMAGES))
    for codes in (torch.from_numpy(CODES), CODES.astype(np.uint8), CODES.astype(np.int16), CODES.tolist()):
        assert np.array_equal(tokenizer.decode(codes), tokenizer.decode(CODES))
    mirrored = IMAGES[:, ::-1]
    for images in (mirrored, np.asfortranarray(mirrored)):
        assert np.array_equal(tokenizer.encode(images), tokenizer.encode(mirrored.copy()))


def test_the_prior_need_not_be_there(finished_run, tmp_path, tokenizer, pictures):
    """With code maps, and with nothing but stage one."""
    for kept in (("stage1", "codes"), ("stage1",)):
        run = tmp_path / str(len(kept))
        run.mkdir()
        shutil.copy(finished_run / "config.yaml", run)
        for name in kept:
            shutil.copytree(finished_run / name, run / name)
        assert np.array_equal(Tokenizer.from_run(run).encode(pictures), tokenizer.encode(pictures))


def test_it_is_the_vqvae_that_prior_and_codes_came_from(finished_run, tmp_path, tokenizer, pictures, command):
    """Though stage one went on to a better checkpoint; without prior and codes it is that one."""
    run = tmp_path / "run"
    shutil.copytree(finished_run, run, ignore=shutil.ignore_patterns("stage2", "codes"))
    more = ["--stage1.steps", 12, "--stage1.eval_every", 2, "--stage1.keep", 9]
    code, printed = command("train-vqvae", run, *more)
    assert code == 0, printed
    later = Tokenizer.from_run(run).reconstruct(pictures)
    assert not np.array_equal(later, tokenizer.reconstruct(pictures))
    for bound_by in ("codes", "stage2"):
        shutil.copytree(finished_run / bound_by, run / bound_by)
        assert np.array_equal(Tokenizer.from_run(run).reconstruct(pictures), tokenizer.reconstruct(pictures))
        shutil.rmtree(run / bound_by)
    shutil.rmtree(run / "stage1" / "step-00000004")
    shutil.copytree(finished_run / "stage2", run / "stage2")
    with pytest.raises(UserError, match="do not belong together"):
        Tokenizer.from_run(run)


def test_a_run_that_is_not_trained_is_refused(finished_run, tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        Tokenizer.from_run(tmp_path)
    shutil.copy(finished_run / "config.yaml", tmp_path)
    with pytest.raises(UserError, match="train that stage first"):
        Tokenizer.from_run(tmp_path)


REFUSED = {
    "floats": (IMAGES / 255, r"float64 \[5, 16, 20, 3\]; this run takes uint8 \[N, 16, 20, 3\], black 0"),
    "from -1 to 1": ((IMAGES / 127.5 - 1).astype(np.float32), "float32"),
    "whole numbers of other types": (IMAGES.astype(np.int64), "int64"),
    "one image": (IMAGES[0], r"uint8 \[16, 20, 3\]"),
    "channels first": (IMAGES.transpose(0, 3, 1, 2), r"\[5, 3, 16, 20\]"),
    "grey": (IMAGES[..., :1], r"\[5, 16, 20, 1\]"),
    "another size": (IMAGES[:, :8], r"\[5, 8, 20, 3\]"),
    "none": (IMAGES[:0], r"\[0, 16, 20, 3\]"),
    "a file name": ("photo.png", "got str, which is not an array of numbers"),
    "nothing": (None, "got NoneType"),
    "rows of several lengths": ([[1], [2, 3]], "got list"),
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_is_no_picture_of_the_run_is_refused(given):
    images, words = REFUSED[given]
    for call in (tiny_generator().tokenizer.encode, tiny_generator().reconstruct):
        with pytest.raises(UserError, match=words):
            call(images)


def test_what_are_no_codes_is_refused():
    tokenizer = tiny_generator().tokenizer
    for codes, words in (
        (CODES + 5, "those of this run are from 0 to 6"),
        (CODES - 1, "codes are from -1 to"),
        (CODES.astype(float), r"float64 .* codes are integers \[N, 4, 5\] from 0 to 6"),
        (CODES > 3, "bool"),
        (CODES[0], r"int64 \[4, 5\]"),
        (CODES[:, :3], r"\[5, 3, 5\]"),
        (CODES[:0], r"\[0, 4, 5\]"),
        ("codes.npz", "not an array"),
    ):
        with pytest.raises(UserError, match=words):
            tokenizer.decode(codes)
    for how, words in (({"batch_size": 0}, "at least 1"), ({"precision": "fp8"}, "no, bf16, fp16")):
        with pytest.raises(UserError, match=words):
            tokenizer.decode(CODES, **how)
