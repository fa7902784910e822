"""The real page on real weights, as a browser shows it."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlparse

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.screenshots import app, asked_for, browser, button, elements, missing, press, tab, wait_for
from tests.launch import ROOT
from vqprior import Generator
from vqprior.app import html
from vqprior.app.studio import Studio
from vqprior.app.upload import read_upload
from vqprior.app.visit import AT_ONCE
from vqprior.runtime.codes import Level
from vqprior.runtime.run_dir import RunDir

pytest.importorskip("gradio")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=missing() or "")]
RUN = ROOT / "models" / "mnist"


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator.from_run(RUN, "cpu")


@pytest.fixture(scope="module")
def outside() -> socket.socket:
    """What stands for all other machines: whoever connects to it would have left this one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture(scope="module")
def address(outside):
    proxy = "http://{}:{}".format(*outside.getsockname())
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, proxy)
        patch.setenv("no_proxy", "127.0.0.1,localhost")
        patch.setenv("OMP_NUM_THREADS", "1")
        with app(RUN) as address:
            yield address


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser() as driver:
        yield driver


class Held(Studio):
    """A studio that draws one row anew, the others once it may, and that answers only while it may."""

    go_on: threading.Event
    answers: threading.Event  # of what could stand at a place, and what a picture costs

    def redraw(self, *given):
        for codes in super().redraw(*given):
            yield codes
            while not self.go_on.wait(0.1):
                yield codes

    def candidates(self, *given):
        self.answers.wait(120)
        return super().candidates(*given)

    def examine(self, *given):
        self.answers.wait(120)
        return super().examine(*given)


@pytest.fixture
def held_address(monkeypatch, tmp_path):
    """The page of such a studio, served by this process."""
    import uvicorn

    from vqprior.app.page import build
    from vqprior.app.parts import CSS
    from vqprior.app.serve import application

    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    for name in ("go_on", "answers"):
        monkeypatch.setattr(Held, name, threading.Event(), raising=False)
    Held.answers.set()
    ready = threading.Event()
    app = application(build(Held.from_run(RunDir(RUN))), CSS, tmp_path, ready.set)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert ready.wait(60)
        yield "http://{}:{}".format(*listener.getsockname())
        Held.go_on.set()
        Held.answers.set()
        server.should_exit = True
        thread.join()


@contextmanager
def opened(driver, address: str):
    """A page, loaded anew and left at the end; nothing is asked of another machine and no error is said while
    it is used."""
    asked_for(driver), driver.get_log("browser")  # of the page before
    driver.get(address)
    driver.execute_script("sessionStorage.clear()")  # as in a new window
    driver.refresh()
    wait_for(lambda: button(driver, "Draw"))
    try:
        yield driver
        said = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert not said, said
        hosts = {urlparse(url).netloc for url in asked_for(driver) if not url.startswith(("data:", "blob:"))}
        assert hosts == {urlparse(address).netloc}
    finally:
        driver.get("about:blank")  # what it asks from now on is not of the next page


@pytest.fixture
def page(driver, address):
    with opened(driver, address) as driver:
        yield driver


@pytest.fixture
def held_page(driver, held_address):
    with opened(driver, held_address) as driver:
        yield driver


OUT_OF_SQUARES = """
document.querySelector("#codes .codes").outerHTML = arguments[0];
const text = document.createRange();
return [...document.querySelectorAll("#codes button")].map((one) => {
  text.selectNodeContents(one);
  return text.getBoundingClientRect().width - one.getBoundingClientRect().width;
});
"""
"""Of a map in place of that which is shown, by how many pixels each number is wider than its square."""


def cells(driver, part: str) -> list:
    """The pictures to choose from, or the codes, in a part of the page, as far as they are seen."""
    found = (
        f"return [...document.querySelectorAll('#{part} [data-choice]')].filter((one) => one.offsetParent)"
    )
    return driver.execute_script(found)


def fill(driver, label: str, value: object) -> None:
    """Type into the field with this label."""
    from selenium.webdriver.common.keys import Keys

    xpath = f"//label[.//*[normalize-space(text())='{label}']]//input"
    xpath += f" | //input[@aria-label='number input for {label}']"
    field = next(one for one in driver.find_elements("xpath", xpath) if one.is_displayed())
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(str(value), Keys.TAB)


def choose(driver, label: str, name: str) -> None:
    """Choose from the list with this label."""
    from selenium.webdriver.common.keys import Keys

    field = driver.find_element("css selector", f"input[aria-label='{label}']")
    press(driver, field)
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(name, Keys.ENTER)


def draw(driver, count: int, seed: int) -> None:
    fill(driver, "Number", count)
    fill(driver, "Seed", seed)
    driver.execute_script("document.querySelector('#drawn .cells')?.remove()")  # of an earlier call
    press(driver, button(driver, "Draw"))
    wait_for(lambda: len(cells(driver, "drawn")) == count and button(driver, "Download npz"))


def upload(driver, path) -> None:
    press(driver, tab(driver, "Your picture"))
    for clear in elements(driver, "#upload button[aria-label='Clear']"):
        clear.click()
    field = wait_for(lambda: elements(driver, "#upload input[type=file]"))[0]
    field.send_keys(str(path))


def refusal(driver) -> str:
    """What the page says against something, which is then closed."""
    said = "const all = [...document.querySelectorAll('[data-testid=toast-text]')];"
    said += "return all.map((one) => one.textContent).join()"
    words = wait_for(lambda: driver.execute_script(said))
    driver.execute_script("document.querySelector('[data-testid=toast-close]').click()")
    wait_for(lambda: not driver.execute_script(said))
    return words


def downloaded(driver, folder, kind: str):
    """The file that a button gives."""
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    press(driver, button(driver, f"Download {kind}"))
    return wait_for(lambda: [*folder.glob(f"*.{kind.lower()}")])[0]


def test_pictures_are_drawn_downloaded_and_those_of_sample(page, tmp_path, generator):
    draw(page, 5, 7)
    with np.load(downloaded(page, tmp_path, "npz")) as arrays:
        settings = json.loads(str(arrays["settings"]))
        assert settings["seed"] == 7 and arrays["labels"].tolist() == [0, 1, 2, 3, 4]
        expected = generator.sample(5, seed=7, guidance=settings["guidance"], batch_size=5)
        assert np.abs(arrays["images"].astype(int) - expected).max() <= 1  # as threads round
    with Image.open(downloaded(page, tmp_path, "PNG")) as picture:
        assert json.loads(picture.text["vqprior"]) == settings


def test_the_next_seed_draws_others_and_a_page_loaded_anew_has_its_settings(page):
    value = lambda name: page.find_element("css selector", f"[aria-label='{name}']").get_attribute("value")
    sources = "return [...document.querySelectorAll('#drawn img')].map((one) => one.src)"
    pictures = lambda: page.execute_script(sources)
    choose(page, "Class", "4")
    fill(page, "Temperature", 0.9)
    draw(page, 2, 4)
    others = pictures()
    draw(page, 2, 3)
    press(page, button(page, "Next seed"))
    wait_for(lambda: pictures() == others)
    page.refresh()
    kept = {"number input for Number": "2", "Class": "4", "number input for Temperature": "0.9"}
    wait_for(lambda: button(page, "Draw") and all(value(name) == given for name, given in kept.items()))
    press(page, wait_for(lambda: button(page, "Draw")))
    wait_for(lambda: pictures() == others)


def test_settling_from_noise_ends_in_the_same_pictures(page):
    draw(page, 3, 2)
    sources = "return [...document.querySelectorAll('#drawn img')].map((one) => one.src)"
    by_row = page.execute_script(sources)
    press(page, page.find_element("xpath", "//label[contains(., 'settling from noise')]"))
    draw(page, 3, 2)
    assert page.execute_script(sources) == by_row


def test_codes_are_looked_at_changed_and_drawn_anew_by_keyboard_too(page):
    from selenium.webdriver.common.keys import Keys

    draw(page, 4, 0)
    cells(page, "drawn")[3].send_keys(Keys.ENTER)
    codes = wait_for(lambda: cells(page, "codes"))
    assert len(codes) == 49 and button(page, "Draw the rest anew") is None  # no place yet
    codes[0].send_keys(Keys.ARROW_RIGHT)
    page.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    wait_for(lambda: "Row 1, column 1" in page.find_element("tag name", "body").text)
    wait_for(lambda: page.switch_to.active_element.get_attribute("data-choice") == "8")  # the focus stays
    numbers = lambda: [one.text for one in cells(page, "codes")]
    before, other = numbers(), wait_for(lambda: cells(page, "candidates"))[1]
    code = other.get_attribute("data-choice")
    if before[8] == code:
        other = cells(page, "candidates")[0]
        code = other.get_attribute("data-choice")
    press(page, other)
    wait_for(lambda: numbers()[8] == code)
    assert [*numbers()[:8], *numbers()[9:]] == [*before[:8], *before[9:]]
    press(page, button(page, "Draw the rest anew"))
    wait_for(lambda: numbers()[9:] != before[9:])
    assert numbers()[:9] == [*before[:8], code]
    press(page, button(page, "Undo"))
    wait_for(lambda: numbers()[9:] == before[9:])


def test_drawing_the_rest_anew_is_stopped_and_the_picture_is_as_it_was(held_page):
    draw(held_page, 1, 0)
    press(held_page, cells(held_page, "drawn")[0])
    wait_for(lambda: cells(held_page, "codes"))[0].click()
    wait_for(lambda: button(held_page, "Draw the rest anew"))
    shown = lambda: held_page.find_element("css selector", "#opened img").get_attribute("src")
    numbers = lambda: [one.text for one in cells(held_page, "codes")]
    before, codes = shown(), numbers()
    press(held_page, button(held_page, "Draw the rest anew"))
    wait_for(lambda: shown() != before)
    press(held_page, button(held_page, "Stop"))
    wait_for(lambda: shown() == before)
    Held.go_on.set()
    time.sleep(3)  # longer than the other rows would have taken
    assert shown() == before and numbers() == codes and button(held_page, "Undo") is None
    press(held_page, button(held_page, "Draw the rest anew"))
    wait_for(lambda: numbers() != codes)


def test_a_code_that_is_changed_while_the_rest_is_drawn_anew_stays_changed(held_page):
    draw(held_page, 1, 0)
    press(held_page, cells(held_page, "drawn")[0])
    wait_for(lambda: cells(held_page, "codes"))[8].click()
    other = wait_for(lambda: cells(held_page, "candidates"))[-1]
    code = other.get_attribute("data-choice")
    shown = lambda: held_page.find_element("css selector", "#opened img").get_attribute("src")
    numbers = lambda: [one.text for one in cells(held_page, "codes")]
    before, codes = shown(), numbers()
    press(held_page, button(held_page, "Draw the rest anew"))
    wait_for(lambda: shown() != before)
    press(held_page, other)
    wait_for(lambda: numbers()[8] == code != codes[8])
    Held.go_on.set()
    time.sleep(3)  # longer than the other rows would have taken
    assert numbers() == [*codes[:8], code, *codes[9:]]
    press(held_page, button(held_page, "Undo"))
    wait_for(lambda: shown() == before)


def test_a_code_that_is_changed_stays_changed_where_a_place_is_chosen_before_it_is_shown(held_page):
    draw(held_page, 1, 0)
    press(held_page, cells(held_page, "drawn")[0])
    wait_for(lambda: cells(held_page, "codes"))[8].click()
    other = wait_for(lambda: cells(held_page, "candidates"))[-1]
    codes, code = [one.text for one in cells(held_page, "codes")], other.get_attribute("data-choice")
    Held.answers.clear()
    press(held_page, other)
    press(held_page, cells(held_page, "codes")[20])
    time.sleep(1)  # by then it would have been begun
    assert [one.text for one in cells(held_page, "codes")] == codes
    Held.answers.set()
    wait_for(lambda: "Row 2, column 6" in held_page.find_element("tag name", "body").text)
    assert [one.text for one in cells(held_page, "codes")][8] == code != codes[8]
    assert button(held_page, "Undo")


def test_the_rest_is_drawn_anew_after_a_change_that_is_still_computed(held_page):
    draw(held_page, 1, 0)
    press(held_page, cells(held_page, "drawn")[0])
    wait_for(lambda: cells(held_page, "codes"))[8].click()
    other = wait_for(lambda: cells(held_page, "candidates"))[-1]
    numbers = lambda: [one.text for one in cells(held_page, "codes")]
    codes, code = numbers(), other.get_attribute("data-choice")
    Held.answers.clear()
    Held.go_on.set()
    press(held_page, other)
    press(held_page, button(held_page, "Draw the rest anew"))
    time.sleep(1)  # by then it would have been begun
    Held.answers.set()
    wait_for(lambda: numbers()[:9] == [*codes[:8], code] and numbers()[9:] != codes[9:])
    for expected in ([*codes[:8], code, *codes[9:]], codes):
        press(held_page, button(held_page, "Undo"))
        wait_for(lambda expected=expected: numbers() == expected)


def test_what_is_pressed_in_a_hurry_is_done(held_page):
    draw(held_page, 1, 0)
    press(held_page, cells(held_page, "drawn")[0])
    wait_for(lambda: cells(held_page, "codes"))[8].click()
    wait_for(lambda: cells(held_page, "candidates"))
    numbers = lambda: [one.text for one in cells(held_page, "codes")]
    codes = numbers()
    for number in (-1, -2):
        other = cells(held_page, "candidates")[number]
        code = other.get_attribute("data-choice")
        press(held_page, other)
        wait_for(lambda code=code: numbers()[8] == code)
    Held.answers.clear()
    for _ in range(2):
        press(held_page, button(held_page, "Undo"))
    Held.answers.set()
    wait_for(lambda: numbers() == codes)


def test_no_visitor_waits_for_the_changes_of_another(held_page, held_address):
    first = held_page.current_window_handle
    draw(held_page, 1, 0)
    press(held_page, cells(held_page, "drawn")[0])
    Held.answers.clear()
    wait_for(lambda: cells(held_page, "codes"))[8].click()
    held_page.switch_to.new_window("tab")
    try:
        held_page.get(held_address)
        wait_for(lambda: button(held_page, "Draw"))
        draw(held_page, 1, 0)
        press(held_page, cells(held_page, "drawn")[0])
        wait_for(lambda: cells(held_page, "codes"))
    finally:
        held_page.close()
        held_page.switch_to.window(first)


def test_visitors_who_leave_while_something_is_drawn_make_room_for_others(held_page, held_address):
    for _ in range(AT_ONCE):
        draw(held_page, 1, 0)
        press(held_page, cells(held_page, "drawn")[0])
        wait_for(lambda: cells(held_page, "codes"))[0].click()
        wait_for(lambda: button(held_page, "Draw the rest anew"))
        shown = lambda: held_page.find_element("css selector", "#opened img").get_attribute("src")
        before = shown()
        press(held_page, button(held_page, "Draw the rest anew"))
        wait_for(lambda before=before, shown=shown: shown() != before)
        held_page.get(held_address)
        wait_for(lambda: button(held_page, "Draw"))
    draw(held_page, 1, 0)
    press(held_page, cells(held_page, "drawn")[0])
    wait_for(lambda: cells(held_page, "codes"))
    held_page.get_log("browser")  # pages that are left say that they were


def test_a_picture_is_uploaded_painted_over_and_completed(page, tmp_path, generator):
    from selenium.webdriver.common.keys import Keys

    digit = generator.sample(1, labels=3, seed=5)[0, :, :, 0]
    Image.fromarray(digit).resize((140, 140)).save(tmp_path / "digit.png")
    press(page, tab(page, "Your picture"))
    choose(page, "Its class", "5")  # before there is a picture
    choose(page, "Its class", "not told")
    upload(page, tmp_path / "digit.png")
    said = wait_for(lambda: "PSNR" in (text := page.find_element("id", "examined").text) and text)
    assert "140 x 140 pixels" in said and " bits" in said and len(elements(page, "#examined img")) == 4
    choose(page, "Its class", "3")
    wait_for(lambda: (text := page.find_element("id", "examined").text) != said and "PSNR" in text)
    press(page, button(page, "nothing"))
    press(page, button(page, "Complete"))
    assert "nothing is hidden" in refusal(page)
    canvas = page.find_element("css selector", "#painter canvas")
    for keys in (Keys.ARROW_DOWN, " ", Keys.ARROW_RIGHT, " "):
        canvas.send_keys(keys)
    time.sleep(1)
    press(page, button(page, "Complete"))
    wait_for(lambda: len(cells(page, "completions")) == 12 and button(page, "Download npz"))
    with np.load(downloaded(page, tmp_path, "npz")) as arrays:
        settings = json.loads(str(arrays["settings"]))
        assert settings["hidden"].count("1") >= 16 and (np.diff(arrays["bits"]) >= 0).all()
    cells(page, "completions")[0].click()
    wait_for(lambda: cells(page, "codes"))
    Image.fromarray(255 - digit).save(tmp_path / "other.png")
    upload(page, tmp_path / "other.png")
    wait_for(lambda: "other.png" in page.find_element("id", "examined").text)
    wait_for(lambda: not cells(page, "completions") and not button(page, "Download npz"))


def test_of_classes_chosen_in_a_hurry_the_last_is_measured(held_page, tmp_path, generator):
    digit = generator.sample(1, labels=3, seed=5)
    Image.fromarray(digit[0, :, :, 0]).save(tmp_path / "digit.png")
    upload(held_page, tmp_path / "digit.png")
    said = lambda: held_page.find_element("id", "examined").text
    wait_for(lambda: "PSNR" in said())
    Held.answers.clear()
    choose(held_page, "Its class", "7")
    choose(held_page, "Its class", "3")
    Held.answers.set()
    wait_for(lambda: f"{-generator.log2_prob(digit, labels=3).item():.1f} bits" in said())


def test_of_two_uploads_in_a_hurry_the_second_is_shown_with_the_class_chosen_meanwhile(
    held_page, tmp_path, generator, monkeypatch
):
    from vqprior.app import picture_tab

    def once_it_may(*given):
        Held.answers.wait(120)
        return read_upload(*given)

    monkeypatch.setattr(picture_tab, "read_upload", once_it_may)
    digits = generator.sample(2, seed=5)
    Held.answers.clear()
    for name, digit in zip(("first", "second"), digits, strict=True):
        Image.fromarray(digit[:, :, 0]).save(tmp_path / f"{name}.png")
        upload(held_page, tmp_path / f"{name}.png")
        wait_for(lambda name=name: name in held_page.find_element("id", "upload").text)
        time.sleep(1)  # by then it would have been begun
    choose(held_page, "Its class", "3")
    Held.answers.set()
    expected = f"{-generator.log2_prob(digits[1:], labels=3).item():.1f} bits"
    said = lambda: held_page.find_element("id", "examined").text
    wait_for(lambda: "second.png" in said() and expected in said())


def test_bad_uploads_are_words_and_the_page_goes_on(page, tmp_path):
    (tmp_path / "text.png").write_text("Dear editor")
    (tmp_path / "empty.png").touch()
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    words = {"text.png": "not a picture", "empty.png": "empty", "huge.png": "make it smaller"}
    for name, expected in words.items():
        upload(page, tmp_path / name)
        assert expected in refusal(page)
    frames = [Image.new("L", (28, 28), shade) for shade in (0, 90, 180)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    upload(page, tmp_path / "moving.gif")
    wait_for(lambda: "first of its frames" in page.find_element("id", "examined").text)


def test_two_visitors_get_their_own_pictures(page, address):
    first = page.current_window_handle
    draw(page, 2, 1)
    page.switch_to.new_window("tab")
    page.get(address)
    wait_for(lambda: button(page, "Draw"))
    draw(page, 3, 8)
    second = page.execute_script("return document.querySelector('#drawn').innerHTML")
    page.close()
    page.switch_to.window(first)
    assert page.execute_script("return document.querySelector('#drawn').innerHTML") != second
    cells(page, "drawn")[1].click()
    wait_for(lambda: cells(page, "codes"))
    assert "class 1" in page.find_element("id", "opened").text


def test_a_telephone_needs_no_scrolling_sideways(page):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", dict(width=390, height=844, deviceScaleFactor=1, mobile=True)
    )
    try:
        draw(page, 4, 0)
        for name in ("Codes", "Your picture", "Draw"):
            press(page, tab(page, name))
            assert page.execute_script("return document.documentElement.scrollWidth") <= 390
        press(page, cells(page, "drawn")[0])
        wait_for(lambda: cells(page, "codes"))[0].click()
        wait_for(lambda: button(page, "Draw the rest anew"))
        lines = [one.location["y"] for one in elements(page, "button") if one.text in ("Stop", "Undo")]
        assert len(lines) == 2 and lines[0] == lines[1]
        large = html.code_map(torch.full((16, 16), 8888), Level(9000, 16, 16), None, 0)
        assert max(page.execute_script(OUT_OF_SQUARES, large)) <= 0
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_left_this_machine(page, outside):
    """After all of the above: neither the browser (see `page`) nor the server asked another machine."""
    with pytest.raises(BlockingIOError):
        visitor, _ = outside.accept()
        visitor.settimeout(5)
        pytest.fail(f"it was asked: {visitor.recv(300)}")
