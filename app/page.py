"""The page: its parts, and which of them calls what. All that a visitor has made is in the page's own state,
a copy for each visitor; see studio.py for the work.

Gradio is imported here and nowhere else in vqprior.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gradio as gr
import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.runtime.codes import Codes, in_words
from vqprior.sampling.choice import Sampling
from vqprior.sampling.masks import half

from . import html
from .saved import save_npz, save_png
from .studio import MOST, Made, Place, Studio, Upload, paced, redrawn, settings_of

HERE = Path(__file__).parent
CHOOSE, PAINT, CSS = ((HERE / name).read_text() for name in ("choose.js", "paint.js", "page.css"))
PAINTER = """<div class="painter"><canvas tabindex="0" role="application" aria-label="The picture: paint over
what is to be hidden. Arrow keys move the brush, space paints."></canvas>
<label>Brush <input type="range" min="1" max="${value ? Math.ceil(value.width / 2) : 8}"
value="${value ? value.square : 4}"></label></div>"""
FRAME = 0.1  # seconds between two pictures of what is being drawn, at least
NOTHING = -1  # in lists of classes: all in turn, or none
QUIETLY = dict(show_progress="hidden", api_visibility="private")
WAITING = dict(show_progress="minimal", api_visibility="private")
HALVES = ("upper half", "lower half", "left half", "right half")
Values = dict[Any, Any]
"""Components of the page and what they are to show."""


class Opened(NamedTuple):
    """The one picture that is looked at."""

    made: Made
    level: int
    place: Place | None
    past: tuple[Made, ...]  # before each change


def spoken(function: Callable) -> Callable:
    """The function, whose UserErrors become words on the page."""

    def refuse(error: UserError) -> None:
        raise gr.Error(
            str(error), title="That cannot be done", duration=None, print_exception=False
        ) from error

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


def build(studio: Studio) -> gr.Blocks:
    """The page of a run."""
    with gr.Blocks(
        title=f"vqprior: {studio.name}", delete_cache=(600, 3600), analytics_enabled=False
    ) as page:
        gr.Markdown(_about(studio))
        Page(studio)
    return page.queue(default_concurrency_limit=4)


class Page:
    """The parts of the page and what happens when they are used; made inside of a `gr.Blocks`."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.drawn, self.opened, self.completed = gr.State(), gr.State(), gr.State()
        self.uploaded, self.hidden = gr.State(), gr.State()
        with gr.Tabs() as self.tabs:
            with gr.Tab("Draw", id="draw"):
                self._draw_tab()
            with gr.Tab("Codes", id="codes"):
                self._codes_tab()
            if studio.takes_pictures:
                with gr.Tab("Your picture", id="yours"):
                    self._picture_tab()
        self._wire_drawing()
        self._wire_codes()
        if studio.takes_pictures:
            self._wire_pictures()

    # What there is

    def _draw_tab(self) -> None:
        studio, defaults = self.studio, self.studio.defaults
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                self.label = self._classes("Class", "all in turn")
                self.count = gr.Slider(1, MOST, 20, step=1, label="Number")
                self.seed = gr.Number(defaults.seed, label="Seed", precision=0, minimum=0)
                with gr.Row():
                    self.draw_button = gr.Button("Draw", variant="primary", min_width=100)
                    self.stop_button = gr.Button("Stop", min_width=100)
                with gr.Accordion("How codes are chosen", open=True):
                    self.temperature = gr.Slider(0.1, 2, defaults.temperature, step=0.05, label="Temperature")
                    self.top_p = gr.Slider(0.05, 1, defaults.top_p, step=0.05, label="Top-p")
                    self.guidance = gr.Slider(
                        0, 6, defaults.guidance, step=0.25, label="Guidance", visible=studio.takes_guidance
                    )
                    self.method = gr.Radio(
                        [("row by row", "auto"), ("settling from noise", "parallel")],
                        value="auto",
                        label="How pictures appear",
                        info="Both end in the same pictures.",
                    )
            with gr.Column(scale=3, min_width=320):
                self.pictures = gr.HTML(
                    '<p class="hint">Press Draw. Then click a picture to see its codes and change them.</p>',
                    js_on_load=CHOOSE,
                    elem_id="drawn",
                )
                self.drawn_files = self._files()

    def _codes_tab(self) -> None:
        levels = self.studio.levels
        self.nothing_opened = gr.Markdown("Click a picture on another page of these to see its codes here.")
        with gr.Column(visible=False) as self.codes_column:
            with gr.Row():
                with gr.Column(scale=1, min_width=280):
                    self.opened_picture = gr.HTML(elem_id="opened")
                    self.opened_files = self._files()
                with gr.Column(scale=1, min_width=280):
                    self.level = gr.Radio(
                        [(f"level {index}: {level}", index) for index, level in enumerate(levels)],
                        value=len(levels) - 1,
                        label="Codes, coarsest first",
                        visible=len(levels) > 1,
                    )
                    self.code_map = gr.HTML(js_on_load=CHOOSE, elem_id="codes")
                    with gr.Row():
                        self.redraw_button = gr.Button("Draw the rest anew", variant="primary", min_width=180)
                        self.undo_button = gr.Button("Undo", min_width=80)
                    self.redraw_seed = gr.Number(
                        1,
                        label="Seed of the rest",
                        info="Codes after the place are drawn anew; one more each time.",
                        precision=0,
                        minimum=0,
                    )
            self.candidates_title = gr.Markdown()
            self.candidates = gr.HTML(js_on_load=CHOOSE, elem_id="candidates")

    def _picture_tab(self) -> None:
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                self.file = gr.File(label="A picture", type="filepath", height=130)
                self.picture_label = self._classes("Its class", "not told", may_be_none=True)
            with gr.Column(scale=3, min_width=320):
                self.examined = gr.HTML(
                    '<p class="hint">Upload a picture: its codes, what they give back, what they cost.</p>',
                    elem_id="examined",
                )
                self.open_button = gr.Button("Look at its codes", visible=False, size="sm")
        with gr.Column(visible=False) as self.complete_column:
            gr.Markdown("### Hide a part, and see what could be there")
            with gr.Row():
                with gr.Column(scale=1, min_width=280):
                    self.painter = gr.HTML(None, html_template=PAINTER, js_on_load=PAINT, elem_id="painter")
                    with gr.Row():
                        self.halves = [gr.Button(name, size="sm", min_width=80) for name in HALVES]
                        self.clear = gr.Button("nothing", size="sm", min_width=80)
                    self.complete_count = gr.Slider(1, MOST, 12, step=1, label="Number of completions")
                    self.complete_seed = gr.Number(0, label="Seed", precision=0, minimum=0)
                    with gr.Row():
                        self.complete_button = gr.Button("Complete", variant="primary", min_width=100)
                        self.stop_completing = gr.Button("Stop", min_width=100)
                    gr.Markdown(
                        '<span class="hint">The class is the one above; temperature, top-p and guidance are '
                        "those of the page Draw.</span>"
                    )
                with gr.Column(scale=3, min_width=320):
                    self.completions = gr.HTML(js_on_load=CHOOSE, elem_id="completions")
                    self.completed_files = self._files()

    def _classes(self, label: str, nothing: str, *, may_be_none: bool = False) -> gr.Dropdown:
        """A list of the classes, and what stands for none of them."""
        names = [(name, number) for number, name in enumerate(self.studio.label_names)]
        optional = not may_be_none or self.studio.takes_guidance or not names
        choices = [(nothing, NOTHING), *names] if optional else names
        return gr.Dropdown(choices, value=choices[0][1], label=label, visible=bool(names))

    def _files(self) -> tuple[gr.DownloadButton, gr.DownloadButton]:
        """Buttons to download a PNG and an .npz."""
        with gr.Row():
            return tuple(
                gr.DownloadButton(f"Download {kind}", size="sm", min_width=120, visible=False)
                for kind in ("PNG", "npz")
            )

    # What happens

    def _wire_drawing(self) -> None:
        choice = [self.temperature, self.top_p, self.guidance, self.method]
        shown = [self.pictures, self.drawn, *self.drawn_files]
        begun = gr.on(
            [self.draw_button.click, self.seed.submit],
            spoken(self.draw),
            [self.label, self.count, self.seed, *choice],
            shown,
            **WAITING,
        )
        self.stop_button.click(None, cancels=[begun], **QUIETLY)
        self.pictures.choose(spoken(self.open), [self.drawn], [*self._of_opened(), self.tabs], **QUIETLY)

    def _wire_codes(self) -> None:
        shown = self._of_opened()
        self.code_map.choose(spoken(self.choose_place), [self.opened], shown, **QUIETLY)
        self.candidates.choose(spoken(self.choose_code), [self.opened], shown, **QUIETLY)
        self.level.input(spoken(self.choose_level), [self.opened, self.level], shown, **QUIETLY)
        self.undo_button.click(spoken(self.undo), [self.opened], shown, **QUIETLY)
        choice = [self.temperature, self.top_p, self.guidance, self.method]
        self.redraw_button.click(
            spoken(self.redraw),
            [self.opened, self.redraw_seed, *choice],
            [*shown, self.redraw_seed],
            **WAITING,
        )

    def _wire_pictures(self) -> None:
        choice = [self.temperature, self.top_p, self.guidance, self.method]
        shown = [
            self.uploaded,
            self.examined,
            self.open_button,
            self.complete_column,
            self.painter,
            self.hidden,
        ]
        own = [self.uploaded, self.picture_label]
        self.file.upload(spoken(self.upload), [self.file, self.picture_label], shown, **WAITING)
        self.picture_label.input(spoken(self.examine), own, [self.examined], **QUIETLY)
        self.open_button.click(spoken(self.open_upload), own, [*self._of_opened(), self.tabs], **QUIETLY)
        self.painter.paint(_painted, None, [self.hidden], queue=False, **QUIETLY)
        for name, button in zip((*HALVES, None), (*self.halves, self.clear), strict=True):
            button.click(spoken(self.hide(name)), [self.uploaded], [self.painter, self.hidden], **QUIETLY)
        begun = self.complete_button.click(
            spoken(self.complete),
            [
                self.uploaded,
                self.hidden,
                self.picture_label,
                self.complete_count,
                self.complete_seed,
                *choice,
            ],
            [self.completions, self.completed, *self.completed_files],
            **WAITING,
        )
        self.stop_completing.click(None, cancels=[begun], **QUIETLY)
        self.completions.choose(
            spoken(self.open), [self.completed], [*self._of_opened(), self.tabs], **QUIETLY
        )

    def _of_opened(self) -> list[Any]:
        """All that changes with the picture that is looked at."""
        titles = [self.opened, self.nothing_opened, self.codes_column, self.candidates_title]
        parts = [self.opened_picture, self.level, self.code_map, self.candidates]
        return [*titles, *parts, self.redraw_button, self.undo_button, *self.opened_files]

    def draw(self, label: int, count: float, seed: float, *choice: Any) -> Iterator[Values]:
        """Draw pictures, shown as they appear."""
        sampling = self.studio.sampling(seed, *choice)
        label = None if label == NOTHING else label
        labels = self.studio.labels(label, int(count))
        steps = self.studio.draw(labels, int(count), sampling)
        settings = settings_of(sampling, self.studio.class_name(label))
        yield from self._appear(steps, labels, settings, self.pictures, self.drawn, self.drawn_files)

    def complete(
        self, uploaded: Upload | None, hidden: str | None, label: int, count: float, seed: float, *choice: Any
    ) -> Iterator[Values]:
        """Draw completions, shown as they appear, and then the likeliest first."""
        image, covered = _there(uploaded).image, _mask(hidden, _there(uploaded).image)
        sampling = self.studio.sampling(seed, *choice)
        label = None if label == NOTHING else label
        labels = self.studio.untold(label, int(count))
        steps = self.studio.complete(image, covered, labels, int(count), sampling)
        settings = settings_of(sampling, self.studio.class_name(label)) | {
            "completes": _there(uploaded).about
        }
        shown = (self.completions, self.completed, self.completed_files)
        yield from self._appear(steps, labels, settings, *shown, picture=image, hidden=covered)

    def _appear(
        self,
        steps: Iterator[Codes],
        labels: Tensor | None,
        settings: dict[str, Any],
        pictures: gr.HTML,
        state: gr.State,
        files: tuple[gr.DownloadButton, ...],
        picture: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Iterator[Values]:
        """Pictures while they are drawn, then as they are; the known pixels of a picture stay."""
        codes: Codes = ()
        yield {state: None, **{button: gr.update(visible=False) for button in files}}
        for codes in paced(steps, FRAME):
            partly = self.studio.so_far(codes)
            yield {pictures: html.pictures(partly, self._names(labels, len(partly)))}
        made = self.studio.made(codes, labels, settings)
        captions = self._names(labels, len(made.images))
        if picture is not None:
            made = made.sorted()._replace(images=torch.where(hidden, made.images, picture))
            captions = [f"{bits:.1f} bits" for bits in made.bits.tolist()]
        with TemporaryDirectory() as folder:
            yield {
                pictures: html.pictures(made.images, captions),
                state: made,
                **self._saved(made, files, Path(folder)),
            }

    def _names(self, labels: Tensor | None, count: int) -> list[str]:
        """The class of each picture; its number, where it has none."""
        numbers = [None] * count if labels is None else labels.tolist()
        names = map(self.studio.class_name, numbers)
        return [f"{index}" if name is None else name for index, name in enumerate(names)]

    def _saved(self, made: Made, files: tuple[gr.DownloadButton, ...], folder: Path) -> Values:
        """Files of the pictures in a folder, which Gradio copies, behind their buttons."""
        name = re.sub(r"\W+", "-", self.studio.name)
        png, npz = folder / f"{name}.png", folder / f"{name}.npz"
        save_png(png, made)
        save_npz(npz, made, self.studio.levels, self.studio.label_names)
        values = zip(files, (png, npz), strict=True)
        return {button: gr.update(value=str(file), visible=True) for button, file in values}

    def open(self, made: Made | None, event: gr.EventData) -> Iterator[Values]:
        """Look at one of several pictures."""
        if made is None:
            raise UserError("these pictures are not finished; draw them to the end")
        index = int(event.choice)
        opened = Opened(made.one(index), len(self.studio.levels) - 1, None, ())
        for values in self._show(opened):
            yield {**values, self.tabs: gr.update(selected="codes")}

    def open_upload(self, uploaded: Upload | None, label: int) -> Iterator[Values]:
        """Look at the codes of a visitor's picture."""
        found = self.studio.examine(_there(uploaded).image, None if label == NOTHING else label)
        for values in self._show(Opened(found.made, len(self.studio.levels) - 1, None, ())):
            yield {**values, self.tabs: gr.update(selected="codes")}

    def _show(self, opened: Opened) -> Iterator[Values]:
        """All parts of the page of codes."""
        made, level, place, past = opened
        codes = made.codes[level][0]
        cells, square = "", None
        if place is None:
            title = "Choose a place in the map: here is then said which codes could stand there."
        else:
            found = self.studio.candidates(made, level, place)
            cells = html.candidates(found, codes[place].item())
            square = self.studio.square(level, place, made.images.shape[2:])
            of_level = f"level {level}, " if len(self.studio.levels) > 1 else ""
            title = (
                f"**{of_level}row {place[0]}, column {place[1]}**: what the prior expects there, given all "
                "codes before it. Choose one to put it there."
            )
        name = None if made.labels is None else self.studio.class_name(made.labels.item())
        of_class = f"class {name}, " if name is not None else ""
        below = f'<p role="status">{html.escape(of_class)}{made.bits.item():.1f} bits under the prior</p>'
        with TemporaryDirectory() as folder:
            yield {
                self.opened: opened,
                self.nothing_opened: gr.update(visible=False),
                self.codes_column: gr.update(visible=True),
                self.opened_picture: html.marked(made.images[0], square) + below,
                self.level: level,
                self.code_map: html.code_map(codes, self.studio.levels[level], place),
                self.candidates_title: title,
                self.candidates: cells,
                self.redraw_button: gr.update(interactive=place is not None),
                self.undo_button: gr.update(interactive=bool(past)),
                **self._saved(made, self.opened_files, Path(folder)),
            }

    def choose_place(self, opened: Opened | None, event: gr.EventData) -> Iterator[Values]:
        """Ask which codes could stand at a place."""
        opened = _opened(opened)
        place = divmod(int(event.choice), self.studio.levels[opened.level].width)
        yield from self._show(opened._replace(place=place))

    def choose_code(self, opened: Opened | None, event: gr.EventData) -> Iterator[Values]:
        """Put a code at the place."""
        made, level, place, past = _opened(opened)
        changed = self.studio.with_code(made, level, place, int(event.choice))
        yield from self._show(Opened(changed, level, place, (*past, made)))

    def choose_level(self, opened: Opened | None, level: int) -> Iterator[Values]:
        """Look at another level's codes."""
        yield from self._show(_opened(opened)._replace(level=level, place=None))

    def undo(self, opened: Opened | None) -> Iterator[Values]:
        """Take the last change back."""
        opened = _opened(opened)
        if opened.past:
            *past, made = opened.past
            opened = opened._replace(made=made, past=tuple(past))
        yield from self._show(opened)

    def redraw(self, opened: Opened | None, seed: float, *choice: Any) -> Iterator[Values]:
        """Draw all codes after the place anew."""
        made, level, place, past = _opened(opened)
        sampling: Sampling = self.studio.sampling(seed, *choice)
        codes: Codes = ()
        for codes in paced(self.studio.redraw(made, level, place, sampling), FRAME):
            yield {self.opened_picture: html.marked(self.studio.so_far(codes)[0], None)}
        changed = self.studio.made(codes, made.labels, redrawn(made, level, place, sampling))
        for values in self._show(Opened(changed, level, place, (*past, made))):
            yield {**values, self.redraw_seed: sampling.seed + 1}

    def upload(self, file: str | None, label: int) -> Values:
        """Look at a visitor's picture."""
        if file is None:
            raise UserError("no file has arrived; choose it again")
        uploaded = self.studio.upload(Path(file).read_bytes(), Path(file).name)
        return {
            self.uploaded: uploaded,
            **self.examine(uploaded, label),
            self.open_button: gr.update(visible=True),
            self.complete_column: gr.update(visible=True),
            **self.hide(HALVES[1])(uploaded),
        }

    def examine(self, uploaded: Upload | None, label: int) -> Values:
        """What a picture's codes give back and what they cost."""
        found = self.studio.examine(_there(uploaded).image, None if label == NOTHING else label)
        return {self.examined: html.examined(uploaded, found, self.studio.levels)}

    def hide(self, name: str | None) -> Callable[[Upload | None], Values]:
        """Hides half of a picture, or nothing."""

        def call(uploaded: Upload | None) -> Values:
            image = _there(uploaded).image
            height, width = image.shape[1:]
            covered = half(name, height, width) if name else torch.zeros(height, width, dtype=torch.bool)
            hidden = "".join(map(str, covered.int().flatten().tolist()))
            square = height // self.studio.levels[-1].height
            value = {"source": html.data_url(image), "width": width, "height": height, "square": square}
            return {self.painter: {**value, "hidden": hidden}, self.hidden: hidden}

        return call


def _painted(event: gr.EventData) -> str:
    """What a visitor has hidden, as text of 0 and 1."""
    return str(event.hidden)


def _mask(hidden: str | None, image: Tensor) -> Tensor:
    """That text as bool [H, W] of a picture.

    Raises:
        UserError: it hides nothing, or is of another size.
    """
    height, width = image.shape[1:]
    if not hidden or len(hidden) != height * width or "1" not in hidden:
        raise UserError("nothing is hidden: paint over a part of the picture first")
    return torch.tensor([one == "1" for one in hidden]).view(height, width)


def _there(uploaded: Upload | None) -> Upload:
    """The picture that was uploaded.

    Raises:
        UserError: none was.
    """
    if uploaded is None:
        raise UserError("there is no picture yet; upload one first")
    return uploaded


def _opened(opened: Opened | None) -> Opened:
    """The picture that is looked at.

    Raises:
        UserError: none is.
    """
    if opened is None:
        raise UserError("no picture is looked at; choose one first")
    return opened


def _about(studio: Studio) -> str:
    """The run in two lines."""
    kinds = ", ".join(
        dict.fromkeys(type(prior).__module__.split(".")[-2] for prior in studio.networks.priors)
    )
    classes = f"{len(studio.label_names)} classes" if studio.label_names else "no classes"
    height, width = studio.data.size
    size = f"pictures of {width} x {height}" if studio.takes_pictures else "imported codes, shown as colours"
    missing = (
        ""
        if studio.takes_pictures
        else "<br>It has no VQ-VAE: your own pictures cannot be read or completed."
    )
    codes, device = in_words(studio.levels), studio.networks.device
    return f"## {html.escape(studio.name)}\n{size}, {codes}, {kinds}, {classes}, on {device}{missing}"
