"""The real TensorBoard on a short run of two stages, as a browser shows it."""

import json
import shutil
import urllib.request
from urllib.parse import quote

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.screenshots import browser, elements, missing, open_page, tensorboard, wait_for
from vqprior.configs import Config
from vqprior.runtime.tracker import Tracker

needs_browser = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@pytest.fixture(scope="module")
def address(finished_run, tmp_path_factory):
    """Of a TensorBoard on a folder with one run, called digits."""
    runs = tmp_path_factory.mktemp("runs")
    shutil.copytree(finished_run, runs / "digits")
    with tensorboard(runs) as address:
        yield address


@pytest.fixture(scope="module")
def driver():
    with browser() as driver:
        yield driver


def texts(driver, selector: str) -> str:
    return "\n".join(element.text for element in elements(driver, selector))


def assert_no_error(driver) -> None:
    said = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [message for message in said if "127.0.0.1" in message], said


def fetched(address: str, path: str):
    with urllib.request.urlopen(f"{address}/data/plugin/{path}", timeout=30) as reply:
        return json.load(reply)


@pytest.mark.slow
@needs_browser
def test_it_opens_on_what_decides_with_both_curves_in_one_chart(address, driver):
    open_page(driver, address, "timeseries")
    first = wait_for(lambda: elements(driver, "card-view"))[0]
    said = wait_for(lambda: "Smoothed" in first.text and first.text).split("\n")
    assert said[:2] == ["stage1", "/mse"]
    assert {"digits", "digits/validation"} <= {*said}  # a row of the table below the curves each
    assert_no_error(driver)


@pytest.mark.slow
@needs_browser
def test_the_layout_draws_each_chart(address, driver):
    open_page(driver, address, "custom_scalars")
    titles = ["reconstruction error", "codebook perplexity", "share of the codes", "bits/code, train"]
    page = "tf-custom-scalar-dashboard"
    wait_for(lambda: all(title in texts(driver, page) for title in titles))
    # 2 curves of the error, 3 of bits/code: a line each
    wait_for(lambda: "Matches (2)" in texts(driver, page) and "Matches (3)" in texts(driver, page))
    assert len(elements(driver, "vz-line-chart2")) == 6
    wait_for(lambda: len(elements(driver, "path.line")) >= 6)
    assert_no_error(driver)


@pytest.mark.slow
@needs_browser
def test_pictures_are_shown(address, driver):
    open_page(driver, address, "images")
    tags = ["stage1/reconstructions", "stage1/single_codes", "stage2/samples"]
    wait_for(lambda: all(tag in texts(driver, "tf-image-loader") for tag in tags))
    shown = "return arguments[0].complete && arguments[0].naturalWidth > 8"
    wait_for(lambda: sum(driver.execute_script(shown, each) for each in elements(driver, "img")) >= 3)
    assert_no_error(driver)


@pytest.mark.slow
@needs_browser
def test_hparams_hold_settings_and_final_figures(address, driver):
    open_page(driver, address, "hparams")
    wait_for(lambda: "digits" in texts(driver, "tf-hparams-main"))
    said = wait_for(lambda: texts(driver, "tf-hparams-main"))
    assert "stage1.K" in said and "sample.images" not in said
    assert "stage1/mse" in said and "stage2/bits_per_code" in said
    assert_no_error(driver)


@pytest.mark.slow
def test_the_codebook_is_in_the_projector(address):
    assert "digits" in wait_for(lambda: fetched(address, "projector/runs"))
    (embedding,) = fetched(address, "projector/info?run=digits")["embeddings"]
    assert embedding["tensorName"] == "codebook" and embedding["tensorShape"] == [16, 4]
    where = f"run=digits&name={quote('codebook')}"
    for kind in ("tensor", "metadata", "sprite_image"):
        with urllib.request.urlopen(f"{address}/data/plugin/projector/{kind}?{where}", timeout=30) as reply:
            assert len(reply.read()) > 50


def curve(run, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_a_resume_takes_back_its_own_stage_alone_and_half_a_record(tmp_path):
    """What a killed run wrote beyond its checkpoint goes; what the other stages wrote stays."""
    for stage, steps in (("stage1", range(1, 7)), ("stage2", range(1, 5)), ("stage2-1", range(1, 5))):
        tracker = Tracker(tmp_path, stage, step=0, active=True)
        tracker.settings(0, Config(), "vqprior run")
        for step in steps:
            tracker.scalars(step, {"mse": step, "loss/total": step})
        tracker.close()
    newest = max(tmp_path.glob("events*"))
    newest.write_bytes(newest.read_bytes()[:-3])  # killed as it wrote the last record
    tracker = Tracker(tmp_path, "stage2", step=2, active=True)
    tracker.settings(2, Config(), "vqprior run again")
    for step in (3, 4):
        tracker.scalars(step, {"mse": -step, "loss/total": -step})
    tracker.close()
    assert curve(tmp_path, "stage1/mse") == [(step, step) for step in range(1, 7)]
    assert curve(tmp_path, "stage2/mse") == [(1, 1), (2, 2), (3, -3), (4, -4)]
    assert curve(tmp_path, "stage2_loss/total") == [(1, 1), (2, 2), (3, -3), (4, -4)]
    assert curve(tmp_path, "stage2-1/mse") == [(step, step) for step in range(1, 5)]
    assert curve(tmp_path, "stage2-1_loss/total") == [(step, step) for step in range(1, 4)]
