"""What the tabs of the page do, without a browser."""

import asyncio
import json
from types import SimpleNamespace

import numpy as np
import pytest

gr = pytest.importorskip("gradio")

from tests.app.studios import IMAGE, png, studio_of  # noqa: E402
from tests.conftest import colour  # noqa: E402
from tests.sampling.tiny import tiny_generator  # noqa: E402
from vqprior.app.codes_tab import CodesTab  # noqa: E402
from vqprior.app.draw_tab import DrawTab  # noqa: E402
from vqprior.app.page import build  # noqa: E402
from vqprior.app.parts import NOTHING, spoken, uploads_alone  # noqa: E402
from vqprior.app.picture_tab import PictureTab, mask_of  # noqa: E402
from vqprior.app.visit import Visit  # noqa: E402
from vqprior.configs.errors import UserError  # noqa: E402

CHOICE = (1.0, 1.0, 1.0, "auto")


class Tabs:
    """The tabs of a page."""

    def __init__(self, studio):
        with gr.Blocks() as self.page:
            tabs = gr.Tabs()
            self.draw = DrawTab(studio)
            self.codes = CodesTab(studio, self.draw.choice, tabs)
            if studio.takes_pictures:
                self.picture = PictureTab(studio, self.draw.choice, self.codes)


def choosing(number: int, *of: int) -> SimpleNamespace:
    """What a click on a button reports."""
    return SimpleNamespace(choice=number, of=[*of])


def last(steps) -> dict:
    """What a handler shows in the end; each value as it was when it was shown."""
    shown = {}
    for values in steps:
        shown |= values
    return shown


def test_the_page_of_every_kind_of_run_is_built(studio):
    config = build(studio).get_config_file()
    labels = [part["props"].get("label") for part in config["components"] if part["type"] == "tabitem"]
    assert labels == ["Draw", "Codes", "Your picture"][: 3 if studio.takes_pictures else 2]
    said = "".join(str(part["props"].get("value")) for part in config["components"])
    assert ("There is no VQ-VAE" in said) == (not studio.takes_pictures)
    visible = {
        part["props"]["label"]: part["props"]["visible"]
        for part in config["components"]
        if "label" in part["props"]
    }
    assert visible["Class"] == bool(studio.label_names) and visible["Guidance"] == studio.takes_guidance
    assert not any(dependency["api_visibility"] == "public" for dependency in config["dependencies"])


def test_draw_open_change_redraw_undo(studio):
    tabs, visit = Tabs(studio), Visit()
    codes, level = tabs.codes, len(studio.levels) - 1
    gallery = last(tabs.draw.draw(NOTHING, 3, 1, *CHOICE))
    made = gallery[tabs.draw.gallery.made]
    assert gallery[tabs.draw.gallery.pictures].count("data-choice") == 3
    last(codes.choose_picture(visit, made, choosing(2)))
    assert visit.opened.made.images.equal(made.images[2:]) and visit.opened.place is None
    place = divmod(7, studio.levels[-1].width)
    assert "data-choice" in last(codes.choose_place(visit, choosing(7, level)))[codes.candidates]
    assert visit.opened.place == place
    there = visit.opened.made.codes[-1][0, *place].item()
    last(codes.choose_code(visit, choosing(there, level, *place)))
    assert not visit.opened.past  # nothing has changed
    last(codes.choose_code(visit, choosing((there + 1) % 7, level, *place)))
    changed = visit.opened
    assert changed.made.codes[-1][0, *place] == (there + 1) % 7
    assert last(codes.redraw(visit, 4, *CHOICE))[codes.seed] == 5 and len(visit.opened.past) == 2
    last(codes.undo(visit))
    assert visit.opened.made.codes[-1].equal(changed.made.codes[-1])
    last(codes.choose_level(visit, 0))
    assert (visit.opened.level, visit.opened.place) == (0, None)


def test_a_code_is_put_where_it_was_shown_and_a_place_is_of_the_level_that_was(two):
    tabs, visit = Tabs(two), Visit()
    made = last(tabs.draw.draw(NOTHING, 3, 1, *CHOICE))[tabs.draw.gallery.made]
    last(tabs.codes.choose_picture(visit, made, choosing(0)))
    last(tabs.codes.choose_place(visit, choosing(7, 1)))
    other = (visit.opened.made.codes[0][0, 1, 2].item() + 1) % 7
    last(tabs.codes.choose_code(visit, choosing(other, 0, 1, 2)))
    assert visit.opened.made.codes[0][0, 1, 2] == other and visit.opened[1:3] == (0, (1, 2))
    last(tabs.codes.choose_place(visit, choosing(8, 1)))
    assert visit.opened[1:3] == (1, divmod(8, two.levels[1].width))


def test_each_action_ends_with_nothing_to_show_but_the_visit_which_gradio_then_forgets_in_time(one):
    tabs, visit = Tabs(one), Visit()
    made = last(tabs.draw.draw(NOTHING, 1, 1, *CHOICE))[tabs.draw.gallery.made]
    last(tabs.codes.choose_picture(visit, made, choosing(0)))
    (stop,) = (one for one in tabs.page.fns.values() if one.name == "as_it_was")
    shown = [*stop.fn(visit)]
    assert tabs.codes.picture in shown[0] and shown[-1] == {tabs.codes.visit: visit}
    assert tabs.codes.visit in stop.outputs


def test_unfinished_pictures_are_not_opened(one):
    tabs = Tabs(one)
    begun = next(tabs.draw.draw(NOTHING, 3, 1, *CHOICE))
    assert begun[tabs.draw.gallery.made] is None
    with pytest.raises(UserError, match="not finished"):
        last(tabs.codes.choose_picture(Visit(), None, choosing(0)))


def test_events_that_come_after_the_page_has_changed_are_answered_in_words(studio):
    tabs, visit = Tabs(studio), Visit()
    made = last(tabs.draw.draw(NOTHING, 3, 1, *CHOICE))[tabs.draw.gallery.made]
    last(tabs.codes.choose_picture(visit, made, choosing(0)))
    last(tabs.codes.choose_level(visit, 0))
    beyond = studio.levels[0].places
    for steps, words in (
        (tabs.codes.choose_picture(visit, made, choosing(3)), "there are 3 pictures now; choose again"),
        (tabs.codes.choose_picture(visit, made, choosing(-1)), "there are 3 pictures now; choose again"),
        (tabs.codes.choose_place(visit, choosing(beyond, 0)), f"there are {beyond} places now"),
        (tabs.codes.redraw(visit, 4, *CHOICE), "choose a place in the map of codes first"),
        (tabs.codes.undo(visit), "there is nothing to undo"),
        (tabs.codes.undo(Visit()), "load it anew"),
        # Of a page of a program that has ended, whose run had more levels
        (tabs.codes.choose_place(Visit(), choosing(1, len(studio.levels))), "load it anew"),
        (tabs.codes.choose_code(Visit(), choosing(1, len(studio.levels), 0, 0)), "load it anew"),
    ):
        with pytest.raises(UserError, match=words):
            next(steps)  # before anything is shown


def test_numbers_of_pictures_are_whole(one):
    sliders = {part.label: part for part in build(one).blocks.values() if isinstance(part, gr.Slider)}
    for name in ("Number", "Number of completions"):
        number = sliders[name].preprocess(2.5)  # what the handler is given
        assert isinstance(number, int) and number in (2, 3)
    assert sliders["Temperature"].preprocess(0.55) == 0.55


def test_two_visitors_who_draw_in_turn_get_their_own(one):
    tabs = Tabs(one)
    both = [tabs.draw.draw(label, 2, seed, *CHOICE) for label, seed in ((0, 1), (2, 5))]
    shown = [{}, {}]
    for pair in zip(*both, strict=False):
        shown = [before | values for before, values in zip(shown, pair, strict=True)]
    shown = [before | last(rest) for before, rest in zip(shown, both, strict=True)]
    for values, label, seed in zip(shown, (0, 2), (1, 5), strict=True):
        expected = one.generator.sample(2, labels=label, seed=seed, guidance=1.0, batch_size=2)
        assert np.array_equal(values[tabs.draw.gallery.made].images.permute(0, 2, 3, 1), expected)


def test_a_picture_is_examined_covered_and_completed(two, tmp_path):
    tab = Tabs(two).picture
    (tmp_path / "mine.png").write_bytes(png(colour(1, 16, 24)))
    shown = tab.upload(str(tmp_path / "mine.png"))
    uploaded, hidden = shown[tab.uploaded], shown[tab.hidden]
    said = tab.examine(uploaded, 1)[tab.examined]
    assert "mine.png" in said and "PSNR" in said
    assert hidden == "0" * 8 * 24 + "1" * 8 * 24 and shown[tab.painter]["square"] == 4
    done = last(tab.complete(uploaded, hidden, NOTHING, 3, 0, *CHOICE))[tab.gallery.made]
    assert (done.images[:, :, :8] == uploaded.image[:, :8]).all() and (done.bits.diff() >= 0).all()
    assert done.images[:, :, 8:].equal(two.tokenizer.images_of(done.codes)[:, :, 8:])
    bits = -two.generator.log2_prob(tuple(of_level.numpy() for of_level in done.codes))
    assert np.allclose(done.bits, bits)
    assert json.dumps(done.settings) and done.settings["completes"].startswith("mine.png")
    visit = Visit()
    last(tab.open(visit, uploaded, 1))
    assert visit.opened.made.settings["class"] == "b"


@pytest.mark.parametrize("hidden", ["", "0" * 16 * 24, "1" * 7])
def test_a_mask_that_hides_nothing_or_does_not_fit_is_refused(hidden):
    with pytest.raises(UserError, match="nothing is hidden"):
        mask_of(hidden, IMAGE)


def test_a_prior_that_must_be_told_the_class_is_not_offered_none():
    told = studio_of(tiny_generator(size=(16, 24), label_dropout=0))
    parts = build(told).get_config_file()["components"]
    (classes,) = (part["props"] for part in parts if part["props"].get("label") == "Its class")
    assert [name for name, _ in classes["choices"]] == ["a", "b", "c"] and classes["value"] == 0


def test_errors_of_users_become_words_and_others_stay():
    def refuse(words):
        raise UserError(words)

    def refuse_later(words):
        yield 1
        raise UserError(words)

    with pytest.raises(gr.Error, match="too wide"):
        spoken(refuse)("too wide")
    steps = spoken(refuse_later)("too wide")
    assert next(steps) == 1
    with pytest.raises(gr.Error, match="too wide"):
        next(steps)
    with pytest.raises(ZeroDivisionError):
        spoken(lambda: 1 / 0)()


def test_an_address_in_place_of_a_picture_is_refused_and_not_asked_for(tmp_path, monkeypatch):
    def fetch(*_, **__):
        raise AssertionError("a request left the machine")

    monkeypatch.setattr(gr.processing_utils, "async_ssrf_protected_download", fetch)
    (picture := tmp_path / "x.png").write_bytes(b"some bytes")
    with gr.Blocks():
        file = uploads_alone(gr.File())

    def sent(path: str):
        payload = {"path": path, "meta": {"_type": "gradio.FileData"}}
        moving = gr.processing_utils.async_move_files_to_cache(payload, file, check_in_upload_folder=False)
        return asyncio.run(moving)

    assert sent(str(picture))["path"].endswith("x.png")
    with pytest.raises(gr.Error, match="not an address"):
        sent("http://192.0.2.1/x.png")
