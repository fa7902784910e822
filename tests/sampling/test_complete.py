"""Completions: from Python, then as pictures on disk."""

import json
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import colour
from tests.sampling.tiny import tiny_generator
from vqprior.configs import UserError
from vqprior.runtime.codes import Level
from vqprior.runtime.data.transform import prepare
from vqprior.runtime.run_dir import RunDir
from vqprior.sampling.masks import hidden_codes
from vqprior.sampling.networks import Networks

HEIGHT, WIDTH = 16, 20  # codes 4 x 5
RNG = np.random.default_rng(0)
IMAGE, OTHER = RNG.integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
NOTHING, EVERYTHING = np.zeros((HEIGHT, WIDTH), bool), np.ones((HEIGHT, WIDTH), bool)
BLOT = np.hypot(np.arange(HEIGHT)[:, None] - 5, np.arange(WIDTH) - 9) < 4.5
STRAY = RNG.random((HEIGHT, WIDTH)) < 0.03  # single pixels here and there


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


@pytest.mark.parametrize("label", ["a", 2, None])
@pytest.mark.parametrize("mask", [BLOT, STRAY, ~BLOT], ids=["blot", "stray", "frame"])
def test_known_codes_and_pixels_are_kept_and_hidden_ones_have_no_influence(generator, mask, label):
    done = generator.complete(IMAGE, mask, n=5, labels=label)
    assert done.images.shape == (5, HEIGHT, WIDTH, 3) and done.codes.shape == (5, 4, 5)
    assert np.array_equal(done.known, ~hidden_codes(torch.from_numpy(mask), Level(7, 4, 5)).numpy())
    assert (done.codes[:, done.known] == done.codes[0, done.known]).all()
    assert (done.codes[:, ~done.known] != done.codes[0, ~done.known]).any()
    assert (done.images[:, ~mask] == IMAGE[~mask]).all()

    behind = generator.complete(np.where(mask[..., None], OTHER, IMAGE), mask, n=5, labels=label)
    assert all(np.array_equal(a, b) for a, b in zip(done, behind, strict=True))


def test_a_known_code_is_that_of_the_picture_where_the_encoder_sees_nothing_hidden(generator):
    """One hidden corner: codes far from it are those of the whole picture."""
    mask = NOTHING.copy()
    mask[-1, -1] = True
    done = generator.complete(IMAGE, mask, n=1)
    whole = generator.encode(IMAGE[None])[0]
    assert done.known.sum() == 19 and np.array_equal(done.codes[0, 0, :3], whole[0, :3])


def test_known_codes_are_those_that_completions_keep(generator):
    known, done = generator.known_codes(IMAGE, BLOT)[0], generator.complete(IMAGE, BLOT, n=3)
    assert np.array_equal(known >= 0, done.known) and (known[~done.known] == -1).all()
    assert (done.codes[:, done.known] == known[done.known]).all()


def test_a_mask_that_covers_nothing_gives_the_picture_back(generator):
    done = generator.complete(IMAGE, NOTHING, n=3, labels="b")
    assert done.known.all() and (done.images == IMAGE).all()
    assert np.array_equal(done.codes[0], generator.encode(IMAGE[None])[0])
    assert done.draws.tolist() == [0, 1, 2]  # equally likely: in their order


def test_a_mask_that_covers_everything_is_sampling(generator):
    done = generator.complete(IMAGE, EVERYTHING, n=6, labels="b", seed=3, temperature=0.8, guidance=1.5)
    sampled = generator.sample(6, labels="b", seed=3, temperature=0.8, guidance=1.5, batch_size=16)
    assert not done.known.any() and sorted(done.draws) == [*range(6)]
    assert np.array_equal(done.images, sampled[done.draws])


def test_the_likeliest_come_first_and_are_kept(generator):
    some = generator.complete(IMAGE, BLOT, n=3, draws=20, labels="c")
    each = generator.complete(IMAGE, BLOT, n=20, labels="c")
    assert (np.diff(each.bits) >= 0).all() and len(set(each.bits)) > 10
    for name in ("images", "codes", "bits", "draws"):
        assert np.array_equal(getattr(some, name), getattr(each, name)[:3]), name
    assert np.allclose(each.bits, -generator.log2_prob(each.codes, "c"), rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_completion_i_is_completion_i_for_every_batch_size_and_n(generator, batch_size):
    each = generator.complete(IMAGE, BLOT, n=7, labels="a", batch_size=7)
    some = generator.complete(IMAGE, BLOT, n=5, labels="a", batch_size=batch_size)
    place = {draw: index for index, draw in enumerate(each.draws.tolist())}
    assert np.array_equal(some.codes, each.codes[[place[draw] for draw in some.draws.tolist()]])


@pytest.mark.parametrize("batch_size", [None, "auto"])
def test_the_batch_size_may_be_left_to_the_machine(generator, batch_size):
    done = generator.complete(IMAGE, BLOT, n=2, labels=0, batch_size=batch_size)
    assert np.array_equal(done.codes, generator.complete(IMAGE, BLOT, n=2, labels=0).codes)
    codes = generator.encode(OTHER[None], batch_size=batch_size)
    assert np.array_equal(codes, generator.encode(OTHER[None], batch_size=2))


def test_draws_may_have_labels_and_settings_of_their_own(generator):
    done = generator.complete(
        IMAGE, BLOT, n=4, labels=["a", 1, "c", "a"], top_k=[1, 1, 0, 1], guidance=[1.0, 3.0, 1.0, 0.5]
    )
    alone = [
        generator.complete(IMAGE, BLOT, n=1, labels=label, top_k=1, guidance=g)
        for label, g in (("a", 1), ("b", 3))
    ]
    place = done.draws.tolist().index
    assert np.array_equal(done.codes[place(0)], alone[0].codes[0])
    assert np.array_equal(done.codes[place(1)], alone[1].codes[0])


def test_grey_pictures_and_priors_without_classes():
    generator = tiny_generator(classes=0, channels=1)
    done = generator.complete(IMAGE[..., :1], BLOT, n=2)
    assert done.images.shape == (2, HEIGHT, WIDTH, 1) and (done.images[:, ~BLOT] == IMAGE[~BLOT, :1]).all()


def test_mistakes_are_answered(generator):
    for call, words in (
        (lambda: generator.complete(IMAGE[:8], BLOT), r"uint8 \[8, 20, 3\]|uint8 \[1, 8, 20, 3\]"),
        (lambda: generator.complete(IMAGE, BLOT[:8]), r"bool \[8, 20\]; it takes bool \[16, 20\]"),
        (lambda: generator.complete(IMAGE, BLOT.astype(int)), "int64"),
        (lambda: generator.complete(IMAGE, BLOT, n=4, draws=3), "at most draws"),
        (lambda: generator.complete(IMAGE, BLOT, n=0), "at least 1"),
        (lambda: generator.complete(IMAGE, BLOT, labels="wasp"), "0 a, 1 b, 2 c"),
        (lambda: generator.complete(IMAGE, BLOT, n=3, labels=["a"]), "3 images, but 1 labels"),
        (lambda: generator.complete(IMAGE, BLOT, n=3, top_p=[1.0, 0.5]), "top_p .* for 3 images"),
        (lambda: tiny_generator(label_dropout=0).complete(IMAGE, BLOT), "give a label"),
    ):
        with pytest.raises(UserError, match=words):
            call()


# On disk, with a picture that is larger than the run's 8 x 8


def write(path, pixels: np.ndarray) -> str:
    Image.fromarray(pixels).save(path)
    return str(path)


@pytest.fixture
def photo(tmp_path) -> str:
    return write(tmp_path / "photo.png", np.asarray(colour(5, height=33, width=47)))


def arrays(folder) -> dict[str, np.ndarray]:
    return dict(np.load(folder / "completions.npz"))


def test_the_command_writes_one_picture_and_its_numbers(finished_run, tmp_path, command, photo):
    out = tmp_path / "out"
    how = [
        "--hide",
        "lower half",
        "--label",
        "bee",
        "--images",
        3,
        "--draws",
        5,
        "--seed",
        2,
        "--temperature",
        0.9,
        "--top_p",
        0.9,
    ]
    code, printed = command("complete", finished_run, "--image", photo, *how, "--out", out)
    assert code == 0 and "2 of 4 codes are known; 3 of 5 draws" in printed
    found, record = arrays(out), json.loads((out / "completions.json").read_text())
    assert found["images"].shape == (3, 8, 8, 3) and found["known"].tolist() == [[True, True], [False, False]]
    assert (
        record["bits"] == found["bits"].tolist() and record["label"] == "bee" and record["codes_known"] == 2
    )

    # panels of 8 x 8 pixels, each enlarged 12 times
    picture = np.asarray(Image.open(out / "completions.png"))
    panels = [picture[2:98:12, 2 + 98 * i : 2 + 98 * i + 96 : 12] for i in range(5)]
    data = RunDir(finished_run).config().data
    original = prepare(Image.open(photo), data).transpose(1, 2, 0)
    assert picture.shape == (100, 5 * 98 + 2, 3)
    assert np.array_equal(panels[0], original)
    assert (panels[1][found["hidden"]] == 128).all() and np.array_equal(panels[1][:2], original[:2])
    assert all(np.array_equal(panel, image) for panel, image in zip(panels[2:], found["images"], strict=True))


@pytest.mark.parametrize("how", ["mask", "array", "box", "hide"])
def test_what_is_behind_the_mask_of_a_photo_changes_no_completion(
    finished_run, tmp_path, command, photo, how
):
    """Though the photo is resized, which mixes neighbours."""
    pixels = np.asarray(Image.open(photo)).copy()
    small = np.zeros((6, 5), dtype=np.uint8)  # a mask of another size, stretched
    small[3:, 2:] = 255
    np.save(tmp_path / "mask.npy", small > 0)
    flags = {
        "mask": ["--mask", write(tmp_path / "mask.png", small)],
        "array": ["--mask", tmp_path / "mask.npy"],
        "box": ["--box", 13, 9, 11, 10],
        "hide": ["--hide", "left half"],
    }[how]
    stretched = np.asarray(Image.fromarray(small).resize((47, 33), Image.Resampling.NEAREST)) > 127
    hidden = {
        "mask": stretched,
        "array": stretched,
        "box": np.pad(np.ones((11, 10), bool), ((13, 33 - 24), (9, 47 - 19))),
        "hide": np.broadcast_to(np.arange(47) < 23, (33, 47)),
    }[how]
    pixels[hidden] = RNG.integers(0, 256, (hidden.sum(), 3))
    other = write(tmp_path / "other.png", pixels)
    for image, out in ((photo, "a"), (other, "b")):
        code, printed = command(
            "complete", finished_run, "--image", image, *flags, "--label", 0, "--out", tmp_path / out
        )
        assert code == 0, printed
    one, two = arrays(tmp_path / "a"), arrays(tmp_path / "b")
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert one["hidden"].any() and not one["hidden"].all()


def test_a_call_that_was_stopped_while_it_wrote_is_no_other_file(
    finished_run, tmp_path, command, photo, monkeypatch
):
    from vqprior.sampling import complete

    words = ["complete", finished_run, "--image", photo, "--hide", "left half", "--label", "ant"]
    with monkeypatch.context() as patch:
        patch.setattr(complete, "save_png", lambda *_: (_ for _ in ()).throw(UserError("the disk is full")))
        assert "the disk is full" in command(*words, "--out", tmp_path / "out")[1]
    code, printed = command(*words, "--out", tmp_path / "out")
    assert code == 0, printed


def test_a_picture_with_nothing_hidden_comes_back(finished_run, tmp_path, command, photo):
    black = write(tmp_path / "black.png", np.zeros((33, 47), dtype=np.uint8))
    flags = ["--image", photo, "--mask", black, "--label", "ant", "--images", 2, "--out", tmp_path / "out"]
    assert command("complete", finished_run, *flags)[0] == 0
    prepared = prepare(Image.open(photo), RunDir(finished_run).config().data).transpose(1, 2, 0)
    assert (arrays(tmp_path / "out")["images"] == prepared).all()


def test_a_mask_of_0_and_1_in_8_bits_is_refused(finished_run, tmp_path, command, photo):
    """It is common, and no pixel of it is white."""
    mask = write(tmp_path / "mask.png", np.eye(8, dtype=np.uint8))
    code, printed = command(
        "complete", finished_run, "--image", photo, "--mask", mask, "--out", tmp_path / "out"
    )
    assert code == 2 and "its lightest pixel is 1 of 255" in printed, printed


def test_the_smallest_hole_of_a_large_photo_hides_the_pixel_that_it_is_in(finished_run, tmp_path, command):
    """Of which it is less than a 255th part."""
    large = write(tmp_path / "large.png", RNG.integers(0, 256, (800, 800, 3), dtype=np.uint8))
    flags = ["--box", 130, 270, 1, 1, "--label", "ant", "--images", 1, "--out", tmp_path / "out"]
    code, printed = command("complete", finished_run, "--image", large, *flags)
    assert code == 0, printed
    hidden = arrays(tmp_path / "out")["hidden"]
    height, width = hidden.shape
    assert hidden.sum() == 1 and hidden[130 * height // 800, 270 * width // 800]


def test_a_photo_of_more_than_8_bits_goes_by_what_it_holds_and_says_so(finished_run, tmp_path, command):
    """The run learnt from pictures of 8 bits, so that it has no range for others."""
    np.save(tmp_path / "photo.npy", np.linspace(0, 4095, 64).reshape(8, 8).astype(np.uint16))
    np.save(tmp_path / "flat.npy", np.full((8, 8), 7, dtype=np.uint16))
    flags = ["--box", 0, 0, 1, 1, "--label", "ant", "--images", 1, "--out", tmp_path / "out"]
    code, printed = command("complete", finished_run, "--image", tmp_path / "photo.npy", *flags)
    assert code == 0 and "0 is black and 4095 white" in printed
    expected = np.linspace(0, 255, 64).round().reshape(8, 8)
    found = arrays(tmp_path / "out")
    assert (abs(found["images"][0, ..., 0] - expected)[~found["hidden"]] <= 1).all()
    code, printed = command("complete", finished_run, "--image", tmp_path / "flat.npy", *flags)
    assert (
        code == 2 and "flat.npy, which --image names: pictures of more than 8 bits have no range" in printed
    )


def test_a_file_is_no_folder_for_what_comes_out(finished_run, tmp_path, command, photo, monkeypatch):
    """Before anything is drawn; neither is a path below it."""
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(Networks, "codes", None)
    calls = [["complete", finished_run, "--image", photo, "--hide", "left half"], ["sample", finished_run]]
    for call, out in product([*calls, ["export", finished_run]], ["file", "file/new"]):
        code, printed = command(*call, "--out", tmp_path / out)
        assert code == 2 and f"{tmp_path / 'file'} is a file; give a folder with --out" in printed, printed
    assert (tmp_path / "file").read_text() == "mine"
