"""The codes of one picture: look at them, change them, draw the rest anew."""

from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gradio as gr

from vqprior.configs.errors import UserError
from vqprior.runtime.codes import Codes

from . import html
from .made import Made, Place, redrawn
from .parts import CHOOSE, FRAME, QUIETLY, Downloads, Gallery, Values, spoken, there
from .studio import Studio, paced


class Opened(NamedTuple):
    """The picture that is looked at."""

    made: Made
    level: int
    place: Place | None
    past: tuple[Made, ...]  # before each change

    def placed(self) -> "Opened":
        """Itself, where a place is chosen.

        Raises:
            UserError: none is, as where the level has changed since.
        """
        if self.place is None:
            raise UserError("no place is chosen: choose a place in the map of codes first")
        return self


class CodesTab:
    """Made inside of a `gr.Tab`.

    Args:
        choice: the components that say how codes are chosen.
        tabs: of the page; choosing a picture goes to the one that is called `codes`.
    """

    def __init__(self, studio: Studio, choice: list[Any], tabs: gr.Tabs):
        self.studio, self.tabs, self.opened = studio, tabs, gr.State()
        levels = studio.levels
        self.nothing = gr.Markdown("Choose a picture on another tab to see its codes here.")
        with gr.Column(visible=False) as self.column, gr.Row():
            with gr.Column(scale=1, min_width=280):
                self.picture = gr.HTML(elem_id="opened")
                self.files = Downloads(studio)
            with gr.Column(scale=1, min_width=280):
                self.level = gr.Radio(
                    [(f"level {index}: {level}", index) for index, level in enumerate(levels)],
                    value=len(levels) - 1,
                    label="Codes, coarsest first",
                    visible=len(levels) > 1,
                )
                self.map = gr.HTML(js_on_load=CHOOSE, elem_id="codes")
                self.title = gr.Markdown()
                self.candidates = gr.HTML(js_on_load=CHOOSE, elem_id="candidates")
                with gr.Row():
                    self.redraw_button = gr.Button("Draw the rest anew", variant="primary", min_width=180)
                    stop = gr.Button("Stop", min_width=90, scale=0)
                    self.undo_button = gr.Button("Undo", min_width=90, scale=0)
                self.seed = gr.Number(
                    1,
                    label="Seed of the rest",
                    info="Codes after the place are drawn anew; one more each time.",
                    precision=0,
                    minimum=0,
                )

        outputs = self.outputs
        given = [self.opened, self.seed, *choice]
        begun = self.redraw_button.click(spoken(self.redraw), given, [*outputs, self.seed], **QUIETLY)
        # All else reads what is looked at and writes it: one after the other, and in place of what is being
        # drawn, whose end would be written over it
        self.in_turn = dict(cancels=[begun], concurrency_id="codes", concurrency_limit=1, **QUIETLY)
        self.map.choose(spoken(self.choose_place), [self.opened], outputs, **self.in_turn)
        self.candidates.choose(spoken(self.choose_code), [self.opened], outputs, **self.in_turn)
        self.level.input(spoken(self.choose_level), [self.opened, self.level], outputs, **self.in_turn)
        self.undo_button.click(spoken(self.undo), [self.opened], outputs, **self.in_turn)
        stop.click(spoken(self.as_it_was), [self.opened], outputs, **self.in_turn)

    @property
    def outputs(self) -> list[Any]:
        """All that changes with the picture that is looked at."""
        where = [self.opened, self.nothing, self.column, self.tabs]
        parts = [self.picture, self.level, self.map, self.title, self.candidates]
        return [*where, *parts, self.redraw_button, self.undo_button, *self.files.buttons]

    def opens(self, gallery: Gallery) -> None:
        """Choosing a picture of a gallery opens it here."""
        gallery.pictures.choose(spoken(self.choose_picture), [gallery.made], self.outputs, **self.in_turn)

    def choose_picture(self, made: Made | None, event: gr.EventData) -> Iterator[Values]:
        """Look at one of several pictures."""
        if made is None:
            raise UserError("these pictures are not finished; draw them to the end")
        yield from self.open(made.one(one_of(len(made.images), event, "pictures")))

    def open(self, made: Made) -> Iterator[Values]:
        """Look at a picture."""
        for values in self._show(Opened(made, len(self.studio.levels) - 1, None, ())):
            yield {**values, self.tabs: gr.update(selected="codes")}

    def choose_place(self, opened: Opened | None, event: gr.EventData) -> Iterator[Values]:
        """Ask which codes could stand at a place."""
        opened = there(opened)
        level = self.studio.levels[opened.level]
        place = divmod(one_of(level.places, event, "places"), level.width)
        yield from self._show(opened._replace(place=place))

    def choose_code(self, opened: Opened | None, event: gr.EventData) -> Iterator[Values]:
        """Put a code at the place."""
        made, level, place, past = there(opened).placed()
        changed = self.studio.with_code(made, level, place, int(event.choice))
        yield from self._show(Opened(changed, level, place, (*past, made)))

    def choose_level(self, opened: Opened | None, level: int) -> Iterator[Values]:
        """Look at another level's codes."""
        yield from self._show(there(opened)._replace(level=level, place=None))

    def undo(self, opened: Opened | None) -> Iterator[Values]:
        """Take the last change back."""
        opened = there(opened)
        if not opened.past:
            raise UserError("there is nothing to undo: this is the picture as it was opened")
        *past, made = opened.past
        yield from self._show(opened._replace(made=made, past=tuple(past)))

    def redraw(self, opened: Opened | None, seed: float, *choice: Any) -> Iterator[Values]:
        """Draw all codes after the place anew."""
        made, level, place, past = there(opened).placed()
        sampling = self.studio.sampling(seed, *choice, told=self.studio.class_of(made) is not None)
        codes: Codes = ()
        for codes in paced(self.studio.redraw(made, level, place, sampling), FRAME):
            yield {self.picture: html.marked(self.studio.so_far(codes)[0], None)}
        changed = self.studio.made(codes, made.labels, redrawn(made, level, place, sampling))
        for values in self._show(Opened(changed, level, place, (*past, made))):
            yield {**values, self.seed: sampling.seed + 1}

    def as_it_was(self, opened: Opened | None) -> Iterator[Values]:
        """Look again at the picture that was being drawn anew."""
        yield from self._show(there(opened))

    def _show(self, opened: Opened) -> Iterator[Values]:
        """All parts as they are for a picture, a level and a place."""
        made, level, place, past = opened
        codes, of_level = made.codes[level][0], self.studio.levels[level]
        title = "Choose a place in the map: here is then said which codes could stand there."
        candidates, square = "", None
        if place is not None:
            found = self.studio.candidates(made, level, place)
            candidates = html.candidates(found, codes[place].item())
            square = self.studio.square(level, place, made.images.shape[2:])
            title = (
                f"**Row {place[0]}, column {place[1]}**: what the prior expects there, given all codes "
                "before it. Choose one to put it there."
            )
        with TemporaryDirectory() as folder:
            yield {
                self.opened: opened,
                self.nothing: gr.update(visible=False),
                self.column: gr.update(visible=True),
                self.picture: html.marked(made.images[0], square) + self._facts(made),
                self.level: level,
                self.map: html.code_map(codes, of_level, place),
                self.title: title,
                self.candidates: candidates,
                self.redraw_button: gr.update(interactive=place is not None),
                self.undo_button: gr.update(interactive=bool(past)),
                **self.files.of(made, folder),
            }

    def _facts(self, made: Made) -> str:
        """The class of a picture and what it costs."""
        name = self.studio.class_of(made)
        of_class = "" if name is None else f"class {html.escape(name)}, "
        return f'<p role="status">{of_class}{made.bits.item():.1f} bits under the prior</p>'


def one_of(count: int, event: gr.EventData, things: str) -> int:
    """The number of the thing that was chosen, of so many.

    Raises:
        UserError: there is none of this number, as where they were fewer by the time that it arrived.
    """
    number = int(event.choice)
    if not 0 <= number < count:
        raise UserError(f"what you chose is no longer there: there are {count} {things} now; choose again")
    return number
