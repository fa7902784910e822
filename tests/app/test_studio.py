"""What the page can do, without the page."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.app.studios import IMAGE, SIZE, drawn, encoded, png, studio_of
from tests.conftest import colour
from tests.pretend_device import pretend
from tests.sampling.tiny import tiny_generator
from vqprior.app import studio as studio_module
from vqprior.app.made import redrawn
from vqprior.app.saved import save_npz, save_png
from vqprior.app.studio import Studio, paced
from vqprior.app.upload import read_upload
from vqprior.configs.errors import UserError
from vqprior.runtime.codes import Level
from vqprior.sampling.decoding import colours


@pytest.mark.parametrize("method", ["auto", "parallel"])
def test_what_is_drawn_is_what_sample_draws(studio, method):
    made = drawn(studio, method=method)
    given = dict(seed=3, temperature=0.9, top_p=0.95, guidance=1.5 if studio.takes_guidance else 1.0)
    expected = studio.generator.sample(4, **given, batch_size=4)
    assert np.array_equal(made.images.permute(0, 2, 3, 1), expected)
    bits = -studio.networks.log2_prob(made.codes, made.labels, batch_size=4)
    assert torch.equal(made.bits, bits)


@pytest.mark.parametrize("method", ["auto", "parallel"])
def test_pictures_appear_where_their_codes_are_drawn_and_end_as_they_are(studio, method):
    sampling, labels = studio.sampling(3, 1, 1, 1, method), studio.labels(None, 4)
    shown = []
    for codes in studio.draw(labels, 4, sampling):
        picture = studio.so_far(codes)
        assert picture.shape == (4, 4, *SIZE) and picture.dtype == torch.uint8
        shown.append(picture)
    last = studio.made(codes, labels, {})
    assert torch.equal(shown[-1][:, :3], last.images.expand(-1, 3, -1, -1)) and (shown[-1][:, 3] == 255).all()
    if method == "auto":  # rows of opaque squares, ever more of them
        rows = [(picture[:, 3] == 255).all(2).sum(1) for picture in shown]
        height = SIZE[0] // studio.levels[0].height
        assert (rows[0] == height).all() and (rows[-1] == SIZE[0]).all()
        covered = (shown[0][:, 3] == 255).float().mean().item()
        assert covered == pytest.approx(height / SIZE[0])


def test_a_coarser_level_is_shown_in_the_colours_of_its_codes(two):
    first, *_ = two.draw(two.labels(1, 1), 1, two.sampling(0, 1, 1, 1, "auto"))
    picture = two.so_far(first)[0]
    own = colours(7)[first[0][0, 0]]  # [3, 3] of the first row
    assert torch.equal(picture[:3, 0, ::8].T, own)


def test_the_rest_is_drawn_anew_from_a_place(studio):
    made = drawn(studio).one(2)
    assert made.settings["picture"] == 2
    for level, of_level in enumerate(studio.levels):
        place = (of_level.height // 2, 1)
        after = place[0] * of_level.width + 2
        results = []
        for seed in (5, 5, 6):
            *_, codes = studio.redraw(made, level, place, studio.sampling(seed, 1, 1, 1, "auto"))
            results.append([of_one.clone() for of_one in codes])
        for index, (before, new, same, other) in enumerate(zip(made.codes, *results, strict=True)):
            kept = {True: before[0].numel(), False: 0}[index < level] if index != level else after
            assert torch.equal(new.flatten()[:kept], before.flatten()[:kept])
            assert torch.equal(new, same)
            if kept < before[0].numel():
                assert not torch.equal(new, other) and not torch.equal(new, before)


def test_a_change_is_of_one_code_and_is_written_down(studio):
    made = drawn(studio).one(0)
    code = (made.codes[-1][0, 1, 2].item() + 1) % 7
    changed = studio.with_code(made, len(studio.levels) - 1, (1, 2), code)
    different = [(a != b).sum().item() for a, b in zip(made.codes, changed.codes, strict=True)]
    assert different == [0] * (len(studio.levels) - 1) + [1] and changed.codes[-1][0, 1, 2] == code
    assert not torch.equal(changed.images, made.images)
    bits = -studio.networks.log2_prob(changed.codes, made.labels, batch_size=1)
    assert torch.equal(changed.bits, bits)
    again = redrawn(changed, 0, (0, 0), studio.sampling(9, 1, 1, 1, "auto"))
    assert [sorted(change)[0] for change in again["changes"]] == ["code", "guidance"]
    assert "changes" not in made.settings and json.dumps(again)
    with pytest.raises(UserError, match="from 0 to 6"):
        studio.with_code(made, 0, (0, 0), 7)


def test_candidates_have_the_priors_probabilities(studio):
    """By brute force: each code put there, and the likelihood of all codes up to the place."""
    made = drawn(studio).one(1)
    level, place = len(studio.levels) - 1, (1, 2)
    found = studio.candidates(made, level, place, count=3)
    probabilities = {}
    for code in range(7):
        bits = studio.bits_by_place(studio.with_code(made, level, place, code))[level][place]
        probabilities[code] = 2 ** -bits.item()
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    for one in found:
        assert one.p == pytest.approx(probabilities[one.code], abs=1e-5)
        rows, columns = studio.square(level, place, SIZE, beyond=4)
        assert torch.equal(
            one.image, studio.with_code(made, level, place, one.code).images[0][:, rows, columns]
        )
    likeliest = sorted(probabilities, key=probabilities.get, reverse=True)
    codes = [one.code for one in found]
    assert codes[:3] == likeliest[:3] and made.codes[level][0, *place].item() in codes and len(codes) <= 4
    later = studio.with_code(made, level, (3, 5), (made.codes[level][0, 3, 5].item() + 1) % 7)
    assert [one.p for one in studio.candidates(later, level, place, count=3)] == [one.p for one in found]


@pytest.mark.parametrize("codes_per_position", [1, 2])
def test_the_squares_of_all_codes_tile_the_picture(one, codes_per_position):
    class Tokens:
        levels = (Level(7, 4, 6 * codes_per_position, codes_per_position),)

    tiled, counted = torch.zeros(SIZE), Studio(one.generator, one.data, "tiny")
    counted.tokenizer = Tokens()
    for i in range(4):
        for j in range(6 * codes_per_position):
            tiled[counted.square(0, (i, j), SIZE)] += 1
    assert (tiled == codes_per_position).all()
    last = (3, 6 * codes_per_position - 1)
    assert counted.square(0, (0, 0), SIZE, beyond=1) == (slice(0, 12), slice(0, 12))
    assert counted.square(0, last, SIZE, beyond=1) == (slice(4, 16), slice(12, 24))
    assert counted.square(0, (1, 0), SIZE, beyond=4) == (slice(0, 16), slice(0, 24))


def test_a_picture_costs_the_sum_of_its_places(one, two, plain):
    for studio in (one, two, plain):
        for label in (None, 1) if studio.label_names else (None,):
            found = studio.examine(IMAGE, label)
            assert [bits.shape for bits in found.bits] == [level.size for level in studio.levels]
            total = sum(bits.sum().item() for bits in found.bits)
            name = None if label is None else "b"
            assert total == pytest.approx(
                -studio.generator.log2_prob(IMAGE[None].permute(0, 2, 3, 1), name)[0]
            )
            error = (found.made.images[0].double() - IMAGE.double()).square().mean().item()
            assert found.psnr == pytest.approx(-10 * np.log10(error / 255**2))
            assert found.made.settings["class"] == name


def test_completions_are_those_of_the_generator(one, two, plain):
    hidden = torch.zeros(SIZE, dtype=torch.bool)
    hidden[9:] = True
    for studio in (one, two, plain):
        labels = studio.told(1 if studio.label_names else None, 5)
        sampling = studio.sampling(2, 0.9, 1, 1, "auto")
        *_, codes = studio.complete(IMAGE, hidden, labels, 5, sampling)
        made = studio.made(codes, labels, {}).sorted()
        given = dict(n=5, seed=2, temperature=0.9, top_p=1.0, guidance=1.0, batch_size=5)
        named = "b" if studio.label_names else None
        done = studio.generator.complete(
            IMAGE.permute(1, 2, 0).numpy(), hidden.numpy(), labels=named, **given
        )
        assert np.allclose(made.bits, done.bits) and made.settings["draws"] == done.draws.tolist()
        shown = torch.where(hidden, made.images, IMAGE)
        assert np.array_equal(shown.permute(0, 2, 3, 1), done.images)


def test_uploads_are_read_or_refused_in_words(one, monkeypatch):
    whole = read_upload(png(colour(1, 16, 24)), "fits.png", one.data)
    assert whole.image.shape == (3, *SIZE) and whole.about == "fits.png: PNG, 24 x 16 pixels of 8 bits"
    assert np.array_equal(whole.image.permute(1, 2, 0), colour(1, 16, 24))
    wide = read_upload(png(colour(2, 10, 20_000)), "wide.png", one.data)
    assert "20,000 x 10" in wide.about and "cut and resized to 24 x 16" in wide.about
    frames = [colour(index, 16, 24) for index in range(3)]
    animated = read_upload(png(frames[0], save_all=True, append_images=frames[1:]), "moving.png", one.data)
    assert "the first of its frames" in animated.about
    assert np.array_equal(animated.image.permute(1, 2, 0), frames[0])
    deep = Image.fromarray((np.arange(16 * 24).reshape(16, 24) * 100).astype(np.uint16))
    assert "16 bits" in read_upload(png(deep), "scan.png", one.data).about
    with pytest.raises(UserError, match=r"blank\.png: pictures of more than 8 bits have no range"):
        read_upload(png(Image.new("I;16", (16, 24))), "blank.png", one.data)
    refused = {
        "empty": b"",
        "not a picture": b"Dear editor, this is no picture",
        "image": png(colour(3, 40, 40))[:300],  # cut
        "known format": encoded(colour(3, 40, 40), "EPS"),
        "of a known format": encoded(colour(3, 40, 40), "ICO"),
    }
    for words, content in refused.items():
        with pytest.raises(UserError, match=rf"bad\.png cannot be read as an image.*{words}"):
            read_upload(content, "bad.png", one.data)
    monkeypatch.setattr("vqprior.app.upload.PIXELS", 1000)
    with pytest.raises(UserError, match=r"large\.png has 41 x 41 pixels; 1,000 in all are the most"):
        read_upload(png(colour(4, 41, 41)), "large.png", one.data)


def test_numbers_that_make_no_sense_are_refused(one):
    for count in (0, 65, 2.5, None, True):
        for refusing in (one.labels, one.told):
            with pytest.raises(UserError, match="it takes 1 to 64 at once, a whole number"):
                refusing(None, count)
    for seed in (None, 1.5, -1, float("nan"), float("inf"), 2**63):
        with pytest.raises(UserError, match="the seed is"):
            one.sampling(seed, 1, 1, 1, "auto")
    with pytest.raises(UserError, match="temperature is 0"):
        one.sampling(0, 0, 1, 1, "auto")
    assert one.sampling(5.0, 1, 1, 1, "auto").seed == 5


def test_who_must_be_told_a_class_is():
    told = studio_of(tiny_generator(size=SIZE, label_dropout=0))
    assert not told.takes_guidance and told.sampling(0, 1, 1, 3, "auto").choice.guidance == 1
    with pytest.raises(UserError, match="give a label"):
        told.examine(IMAGE, None)


def test_files_say_how_to_make_the_pictures_again(studio, tmp_path):
    made = drawn(studio)
    save_npz(tmp_path / "a.npz", made, studio.levels, studio.label_names)
    save_png(tmp_path / "a.png", made)
    with np.load(tmp_path / "a.npz") as arrays:
        settings = json.loads(str(arrays["settings"]))
        assert set(arrays) >= {"images", "labels", "label_names", "bits"}
        chosen = {name: settings[name] for name in ("seed", "temperature", "top_p", "top_k", "guidance")}
        again = studio.generator.sample(4, **chosen, batch_size=4)
        assert np.array_equal(arrays["images"], again)
        names = ["codes"] if len(studio.levels) == 1 else ["codes0", "codes1"]
        for name, codes in zip(names, made.codes, strict=True):
            assert arrays[name].dtype == np.uint8 and np.array_equal(arrays[name], codes)
        assert arrays["labels"].tolist() == ([0, 1, 2, 0] if studio.label_names else [-1] * 4)
    with Image.open(tmp_path / "a.png") as picture:
        assert json.loads(picture.text["vqprior"]) == settings and settings["run"] == "tiny"


def test_a_class_that_says_none_is_none_in_files(one, tmp_path):
    save_npz(tmp_path / "a.npz", one.examine(IMAGE, None).made, one.levels, one.label_names)
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["labels"].tolist() == [-1]


def used(studio: Studio) -> list[torch.Tensor]:
    """What each of its functions gives."""
    hidden, results = torch.zeros(SIZE, dtype=torch.bool), []
    hidden[9:] = True
    for method in ("auto", "parallel"):
        made = drawn(studio, method=method)
        results += [*made.codes, made.images, made.bits, studio.so_far(made.codes)]
        sampling = studio.sampling(5, 1, 1, 2, method)
        *_, codes = studio.redraw(made.one(1), 0, (1, 1), sampling)
        *_, completed = studio.complete(IMAGE, hidden, studio.told(1, 3), 3, sampling)
        results += [*codes, *completed]
    found = studio.examine(IMAGE, None)
    results += [found.made.images, *found.bits]
    results += [one.image for one in studio.candidates(found.made, 0, (1, 1))]
    return [result.cpu() for result in results]


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_gpu_gives_what_the_cpu_gives(two, kind):
    with pretend(kind):
        generator = tiny_generator(size=SIZE, levels=2)
        for network in (generator.networks.vqvae, *generator.networks.priors):
            network.to(f"{kind}:0")
        on_gpu = used(studio_of(generator))
    assert all(torch.equal(a, b) for a, b in zip(on_gpu, used(two), strict=True))


def test_steps_are_left_out_but_never_the_last(monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr(studio_module.time, "monotonic", lambda: next(now))
    assert [*paced(iter("abcdefgh"), 3)][-1] == "h"
    monkeypatch.setattr(studio_module.time, "monotonic", lambda: 0.0)
    assert [*paced(iter("abcd"), 3)] == ["a", "d"] and [*paced(iter("a"), 3)] == ["a"]
    assert [*paced(iter(""), 3)] == []


def test_pictures_that_the_map_does_not_divide_are_shown_while_they_are_drawn(studio, monkeypatch):
    """As those of somebody's own decoder may be."""
    height, width = SIZE[0] + 3, SIZE[1] + 1
    larger = lambda codes, **_: torch.zeros(len(codes[0]), 3, height, width, dtype=torch.uint8)
    monkeypatch.setattr(studio.tokenizer, "images_of", larger)
    sampling = studio.sampling(3, 1, 1, 1, "auto")
    for codes in studio.draw(studio.labels(None, 2), 2, sampling):
        picture = studio.so_far(codes)
    assert picture.shape == (2, 4, height, width) and (picture[:, 3] == 255).all()
