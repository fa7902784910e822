"""What the tabs of the page share: errors in words, a gallery of pictures, downloads, a list of classes."""

import inspect
import re
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import gradio as gr
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.runtime.codes import Codes

from . import html
from .made import Made
from .saved import save_npz, save_png
from .studio import Studio, paced

HERE = Path(__file__).parent
CHOOSE, PAINT, CSS = ((HERE / name).read_text() for name in ("choose.js", "paint.js", "page.css"))
FRAME = 0.1  # seconds between two pictures of what is being drawn, at least
NOTHING = -1  # in lists of classes: all in turn, or none
QUIETLY = dict(show_progress="hidden", api_visibility="private")
Values = dict[Any, Any]
"""Components of the page and what they are to show."""
Kept = TypeVar("Kept")
Finish = Callable[[Made], tuple[Made, list[str]]]
"""Drawn pictures -> those that are shown, and a line for each."""
TO_GALLERY = """() => {
  const part = [...document.querySelectorAll(".gallery")].find((one) => one.offsetParent);
  if (part?.getBoundingClientRect().top > 0.6 * innerHeight) part.scrollIntoView({ behavior: "smooth" });
}"""
"""On a telephone, what is drawn lies below: go there."""
RECALL = """(...now) => {
  const kept = JSON.parse(sessionStorage.getItem(document.title));
  return kept?.length === now.length ? kept : now;
}"""
REMEMBER = "(...now) => sessionStorage.setItem(document.title, JSON.stringify(now))"


def uploads_alone(part: gr.File) -> gr.File:
    """The component, which takes no address: the server would fetch it, and no request leaves this
    machine."""
    keep = part.async_move_resource_to_block_cache

    async def of_this_page(source: str | Path | None) -> str | None:
        if source is not None and "://" in str(source):
            raise gr.Error("give the picture itself, not an address of it")
        return await keep(source)

    part.async_move_resource_to_block_cache = of_this_page
    return part


def spoken(function: Callable) -> Callable:
    """The function, whose UserErrors become words on the page."""

    def refuse(error: UserError) -> None:
        raise gr.Error(str(error), duration=None, print_exception=False) from error  # shown until closed

    @wraps(function)
    def call(*given: Any) -> Any:
        try:
            return function(*given)
        except UserError as error:
            refuse(error)

    @wraps(function)
    def step(*given: Any) -> Iterator[Any]:
        try:
            yield from function(*given)
        except UserError as error:
            refuse(error)

    return step if inspect.isgeneratorfunction(function) else call


def class_list(studio: Studio, label: str, nothing: str, *, only_names: bool = False) -> gr.Dropdown:
    """A list of the classes by number, before them NOTHING under its own name, unless `only_names`."""
    names = [(name, number) for number, name in enumerate(studio.label_names)]
    choices = names if names and only_names else [(nothing, NOTHING), *names]
    return gr.Dropdown(choices, value=choices[0][1], label=label, visible=bool(names))


def kept_on_reload(page: gr.Blocks, fields: list[Any]) -> None:
    """Have the browser keep the fields of a page for as long as its window is open."""
    page.load(None, fields, fields, js=RECALL, **QUIETLY)
    gr.on([field.change for field in fields], None, fields, js=REMEMBER, **QUIETLY)


def next_seed(button: gr.Button, seed: gr.Number, begin: gr.Button, begun: Any) -> None:
    """Have a button draw with the seed that follows, as `begin` does, and in place of what `begun` draws."""
    go_on = f"() => document.getElementById('{begin.elem_id}').click()"
    following = button.click(None, seed, seed, js="(seed) => seed + 1", cancels=[begun], **QUIETLY)
    following.then(None, js=go_on, **QUIETLY)


def chosen(label: int) -> int | None:
    """The class that such a list says."""
    return None if label == NOTHING else label


def there(kept: Kept | None) -> Kept:
    """What a visitor has made or brought before.

    Raises:
        UserError: it is gone.
    """
    if kept is None:
        raise UserError("this page is of a program that has ended since; load it anew")
    return kept


class Downloads:
    """Buttons to download pictures as a PNG and as an .npz."""

    def __init__(self, studio: Studio):
        self.studio = studio
        with gr.Row():
            self.buttons = [
                gr.DownloadButton(f"Download {kind}", size="sm", min_width=120, visible=False)
                for kind in ("PNG", "npz")
            ]

    def hidden(self) -> Values:
        """No pictures to download."""
        return {button: gr.update(visible=False) for button in self.buttons}

    def of(self, made: Made, folder: str) -> Values:
        """The pictures behind the buttons, as files in a folder, which Gradio copies as it shows them."""
        name = re.sub(r"\W+", "-", self.studio.name)
        png, npz = Path(folder) / f"{name}.png", Path(folder) / f"{name}.npz"
        save_png(png, made)
        save_npz(npz, made, self.studio.levels, self.studio.label_names)
        files = zip(self.buttons, (png, npz), strict=True)
        return {button: gr.update(value=str(file), visible=True) for button, file in files}


class Gallery:
    """Pictures to choose from, the visitor's copy of what they are, and their files."""

    def __init__(self, studio: Studio, name: str, hint: str = ""):
        self.studio, self.made = studio, gr.State()
        hint = hint and f'<p class="hint">{hint}</p>'
        self.pictures = gr.HTML(hint, js_on_load=CHOOSE, elem_id=name, elem_classes="gallery")
        self.files = Downloads(studio)

    @property
    def outputs(self) -> list[Any]:
        """All that `appear` changes."""
        return [self.pictures, self.made, *self.files.buttons]

    def nothing(self) -> Values:
        """No pictures."""
        return {self.pictures: "", self.made: None, **self.files.hidden()}

    def appear(
        self,
        steps: Iterator[Codes],
        count: int,
        labels: Tensor | None,
        settings: dict[str, Any],
        finish: Finish | None = None,
    ) -> Iterator[Values]:
        """So many pictures while they are drawn, then as they are."""
        captions = self._captions(labels, count)
        empty = html.pictures(self.studio.nothing_yet(count), captions)
        yield {**self.nothing(), self.pictures: empty}  # no choice before they are done
        codes: Codes = ()
        for codes in paced(steps, FRAME):
            yield {self.pictures: html.pictures(self.studio.so_far(codes), captions)}
        made = self.studio.made(codes, labels, settings)
        if finish:
            made, captions = finish(made)
        with TemporaryDirectory() as folder:
            shown = html.pictures(made.images, captions)
            yield {self.pictures: shown, self.made: made, **self.files.of(made, folder)}

    def _captions(self, labels: Tensor | None, count: int) -> list[str]:
        """The class of each picture; its number, where it has none."""
        numbers = [None] * count if labels is None else labels.tolist()
        names = map(self.studio.class_name, numbers)
        return [f"{index}" if name is None else name for index, name in enumerate(names)]
