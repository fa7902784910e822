"""The parts of the page as text."""

import base64
import io
import re

import numpy as np
import torch
from PIL import Image

from tests.app.studios import IMAGE, drawn
from vqprior.app import html
from vqprior.app.studio import Candidate
from vqprior.app.upload import Upload
from vqprior.runtime.codes import Level
from vqprior.sampling.decoding import colours

EVIL = '<img src=x onerror="alert(1)">'


def decoded(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))))


def test_an_address_holds_the_very_pixels():
    for image in (IMAGE, IMAGE[:1], torch.cat([IMAGE, IMAGE[:1]])):
        pixels = decoded(html.data_url(image))
        assert np.array_equal(pixels, image[0] if len(image) == 1 else image.permute(1, 2, 0))


def test_what_strangers_wrote_is_escaped(one):
    upload = Upload(IMAGE, f"{EVIL}.png: PNG")
    for text in (
        html.pictures(IMAGE[None], [EVIL]),
        html.picture(IMAGE, EVIL),
        html.examined(upload, one.examine(IMAGE, None), one.levels),
    ):
        assert "<img src=x" not in text and "&lt;img src=x" in text and 'onerror="' not in text


def test_each_place_of_a_map_is_a_button_in_its_colour_and_one_takes_the_tab_key(one):
    (codes,), level = drawn(one).one(0).codes, Level(7, 4, 6)
    for place in (None, (2, 3)):
        text = html.code_map(codes[0], level, place, 3)
        assert re.findall(r'data-choice="(\d+)"', text) == [*map(str, range(24))]
        shown = [tuple(bytes.fromhex(colour)) for colour in re.findall(r"background:#(\w{6})", text)]
        assert shown == [tuple(colour) for colour in colours(7)[codes[0].flatten()].tolist()]
        assert [*map(int, re.findall(r">(\d+)</button>", text))] == codes[0].flatten().tolist()
        assert text.count('tabindex="0"') == 1 and text.count('aria-pressed="true"') == (place is not None)
    assert text.count('data-of="3"') == 1 and 'data-choice="15" tabindex="0" aria-pressed="true"' in text


def test_a_wide_map_has_no_numbers_in_its_squares():
    text = html.code_map(torch.zeros(2, 40, dtype=torch.int64), Level(7, 2, 40), None, 0)
    assert "></button>" in text and "code 0" in text


def test_candidates_say_their_probability_and_which_is_there():
    text = html.candidates([Candidate(5, 0.123, IMAGE), Candidate(300, 0.004, IMAGE)], 300, (1, 2, 3))
    assert "<b>12 %</b>" in text and "<b>&lt; 1 %</b>" in text
    pressed = re.findall(r'data-choice="(\d+)" aria-pressed="true"', text)
    assert pressed == ["300"] and text.count('data-of="1 2 3"') == 1


def test_the_frame_lies_around_the_square():
    text = html.marked(IMAGE, (slice(4, 8), slice(12, 18)))
    assert "top:25.000%;left:50.000%;height:25.000%;width:25.000%" in text
    assert "mark" not in html.marked(IMAGE, None)
