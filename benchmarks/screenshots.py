"""The pictures of TensorBoard and of the page of `vqprior app` in the documents:

    python -m benchmarks.screenshots runs docs/images
    python -m benchmarks.screenshots models/mnist docs/images --app digit.png

Starts the real TensorBoard on a folder of runs, or the real page of one run, and drives a headless Chromium
through it (Debian: apt-get install chromium chromium-driver; selenium is in the extra `dev`).
"""

import argparse
import io
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
WINDOW = (1280, 900)  # pixels
SHEET = (1120, 760)  # of the page of a run
TELEPHONE = (390, 844)
ROOT = Path(__file__).parent.parent
WAIT = 30  # seconds that a page may take to show something

PAGES = {"timeseries": "tensorboard", "custom_scalars": "charts"}
"""Pages of TensorBoard, and of each the name of its picture."""

DEEP = """
const found = [];
const walk = (root) => {
  for (const element of root.querySelectorAll("*")) {
    if (element.matches(arguments[0])) found.push(element);
    if (element.shadowRoot) walk(element.shadowRoot);
  }
};
walk(document);
return found;
"""
"""The elements that a CSS selector fits, those inside of web components too."""


def missing() -> str | None:
    """In words, what is not installed here; None where all is."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "there is no selenium: pip install -e '.[dev]'"
    return None if CHROMIUM and DRIVER else "there is no browser: apt-get install chromium chromium-driver"


@contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """The address of a TensorBoard that reads a folder; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir, "--port", port]
    output = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = subprocess.Popen([str(word) for word in command], **output)
    try:
        wait_for(lambda: _answers(f"{address}/data/environment") or server.poll() is not None)
        if server.poll() is not None:
            raise RuntimeError(f"TensorBoard ended with exit code {server.returncode}")
        yield address
    finally:
        server.terminate()
        server.wait()


@contextmanager
def app(run: Path) -> Iterator[str]:
    """The address of the page of a run; it ends with the block."""
    command = [sys.executable, "-m", "vqprior", "app", str(run.resolve()), "--port", "0"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        said = next((line for line in server.stdout if line.startswith("app: http")), None)
        if said is None:
            raise RuntimeError(f"vqprior app ended with exit code {server.wait()}")
        yield said.split()[1]
    finally:
        server.terminate()
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10) as reply:
            return reply.status == 200
    except OSError:
        return False


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium (selenium's WebDriver) that keeps what its console says and what it asks for."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
    alone = ("--disable-background-networking", "--disable-component-update", "--no-proxy-server")
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", *alone, size):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def elements(driver: Any, selector: str) -> list[Any]:
    """What a CSS selector fits, inside of web components too."""
    return driver.execute_script(DEEP, selector)


def wait_for(condition: Any) -> Any:
    """What a function gives, once it is true; what it looks at may be drawn anew meanwhile.

    Raises:
        TimeoutError: it never was.
    """
    from selenium.common.exceptions import StaleElementReferenceException

    def value_now() -> Any:
        try:
            return condition()
        except StaleElementReferenceException:
            return None

    end = time.monotonic() + WAIT
    while not (value := value_now()):
        if time.monotonic() > end:
            raise TimeoutError(f"not true within {WAIT} s")
        time.sleep(0.25)
    return value


def asked_for(driver: Any) -> list[str]:
    """The addresses that the browser has fetched since this was last asked."""
    entries = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    sent = (one["params"] for one in entries if one["method"] == "Network.requestWillBeSent")
    return [one["request"]["url"] for one in sent]


def button(driver: Any, text: str, kind: str = "button:not([role=tab], [tabindex='-1'])") -> Any:
    """The button with this text that is seen and can be used; None where there is none."""
    seen = (one for one in driver.find_elements("css selector", kind) if one.text.strip() == text)
    return next((one for one in seen if one.is_displayed() and one.is_enabled()), None)


def tab(driver: Any, text: str) -> Any:
    """The tab of a page with this name."""
    return button(driver, text, "button[role=tab]")


def press(driver: Any, element: Any) -> None:
    """Click on it, scrolled to where it is seen."""
    driver.execute_script('arguments[0].scrollIntoView({block: "center"})', element)
    time.sleep(0.3)
    element.click()


def open_page(driver: Any, address: str, page: str) -> None:
    """Go to a page of TensorBoard, loaded anew."""
    driver.get("about:blank")
    driver.get(f"{address}/#{page}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logdir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--app", type=Path, metavar="PICTURE", help="the page of a run, and what is uploaded")
    arguments = parser.parse_args()
    if said := missing():
        sys.exit(said)
    if arguments.app:
        with app(arguments.logdir) as address, browser() as driver:
            picture_app(driver, address, arguments.app.resolve(), arguments.out)
        return
    with tensorboard(arguments.logdir) as address, browser() as driver:
        for page, name in PAGES.items():
            open_page(driver, address, page)
            time.sleep(SETTLED)
            save(screenshot(driver), arguments.out / f"{name}.png")


SETTLED = 12  # seconds, until all of a page is drawn


def picture_app(driver: Any, address: str, upload: Path, out: Path) -> None:
    """The tabs of the page of a run, in a wide window and in light colours, on a telephone in dark ones."""
    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
    wide = use_app(driver, address, upload, SHEET)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    narrow = use_app(driver, address, upload, TELEPHONE)
    for name, picture in wide.items():
        save(picture, out / f"app_{name}.png")
    gap = 16
    height = max(picture.height for picture in narrow.values())
    row = Image.new("RGB", (len(narrow) * (TELEPHONE[0] + gap) - gap, height), "white")
    for index, picture in enumerate(narrow.values()):
        row.paste(picture, (index * (TELEPHONE[0] + gap), 0))
    save(row, out / "app_telephone.png")


def use_app(driver: Any, address: str, upload: Path, size: tuple[int, int]) -> dict[str, Image.Image]:
    """The tabs of the page by name, each after it has been used, as high as they are."""
    find = lambda selector: driver.find_elements("css selector", selector)
    resize(driver, *size)
    driver.get(address)
    press(driver, wait_for(lambda: button(driver, "Draw")))
    wait_for(lambda: button(driver, "Download PNG"))
    shown = {"draw": whole_page(driver, size)}
    press(driver, find("#drawn [data-choice='3']")[0])
    press(driver, wait_for(lambda: find("#codes [data-choice='24']"))[0])
    press(driver, wait_for(lambda: find("#candidates [aria-pressed='false']"))[1])
    wait_for(lambda: button(driver, "Undo"))
    shown["codes"] = whole_page(driver, size)
    press(driver, tab(driver, "Your picture"))
    find("#upload input[type=file]")[0].send_keys(str(upload))
    wait_for(lambda: button(driver, "Complete"))
    press(driver, button(driver, "Complete"))
    wait_for(lambda: button(driver, "Download PNG"))
    shown["picture"] = whole_page(driver, size)
    return shown


def resize(driver: Any, width: int, height: int) -> None:
    """The part of the page that is seen, in pixels."""
    seen = dict(width=width, height=height, deviceScaleFactor=1, mobile=width == TELEPHONE[0])
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", seen)
    time.sleep(1)


def whole_page(driver: Any, size: tuple[int, int]) -> Image.Image:
    """A picture of all of a page, not of what is seen of it alone."""
    time.sleep(1)
    resize(
        driver,
        size[0],
        driver.execute_script("return document.querySelector('.gradio-container').scrollHeight"),
    )
    picture = screenshot(driver)
    resize(driver, *size)
    return picture


def screenshot(driver: Any) -> Image.Image:
    """A picture of what is seen."""
    return Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")


def save(picture: Image.Image, path: Path) -> None:
    """A picture in few colours, which makes it small."""
    picture.quantize(256).save(path, optimize=True)
    print(path, f"{path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
