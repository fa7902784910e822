"""The codes of one picture: look at them, change them, draw the rest anew."""

from collections.abc import Callable, Iterator
from functools import wraps
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gradio as gr

from vqprior.configs.errors import UserError
from vqprior.runtime.codes import Codes

from . import html
from .made import Made, Place, redrawn
from .parts import CHOOSE, FRAME, QUIETLY, Downloads, Gallery, Values, spoken, there
from .studio import Studio, paced
from .visit import Visit


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
        self.studio, self.tabs, self.visit = studio, tabs, gr.State(Visit())
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
                    with gr.Column(min_width=200), gr.Row():  # a row of its own where there is no room
                        stop = gr.Button("Stop", min_width=90)
                        self.undo_button = gr.Button("Undo", min_width=90)
                self.seed = gr.Number(
                    1,
                    label="Seed of the rest",
                    info="Codes after the place are drawn anew; one more each time.",
                    precision=0,
                    minimum=0,
                )

        self.on(self.map.choose, self.choose_place)
        self.on(self.candidates.choose, self.choose_code)
        self.on(self.level.input, self.choose_level, self.level)
        self.on(self.redraw_button.click, self.redraw, self.seed, *choice)
        self.on(self.undo_button.click, self.undo)
        self.on(stop.click, self.as_it_was)

    def on(self, event: Callable, action: Callable[..., Iterator[Values]], *given: Any) -> None:
        """Have an event do something with what is looked at: in turn, and in place of what is being drawn.

        Args:
            action: takes a `Visit`, and what `given` holds.
        """

        @wraps(action)
        def in_turn(visit: Visit, *values: Any) -> Iterator[Values]:
            with visit.turn():
                yield from action(visit, *values)
                # At its end Gradio shows the last values again, when the next turn may have shown others; and
                # once a visitor has gone it forgets only what was written
                yield {self.visit: visit}

        at_once = dict(concurrency_id="codes", concurrency_limit=None)  # one queue begins them in their order
        given = [self.visit, *given]
        event(spoken(in_turn), given, self.outputs, trigger_mode="multiple", **at_once, **QUIETLY)

    @property
    def outputs(self) -> list[Any]:
        """All that changes with the picture that is looked at."""
        where = [self.visit, self.nothing, self.column, self.tabs]
        parts = [self.picture, self.level, self.map, self.title, self.candidates, self.seed]
        return [*where, *parts, self.redraw_button, self.undo_button, *self.files.buttons]

    def opens(self, gallery: Gallery) -> None:
        """Choosing a picture of a gallery opens it here."""
        self.on(gallery.pictures.choose, self.choose_picture, gallery.made)

    def choose_picture(self, visit: Visit, made: Made | None, event: gr.EventData) -> Iterator[Values]:
        """Look at one of several pictures."""
        if made is None:
            raise UserError("these pictures are not finished; draw them to the end")
        yield from self.open(visit, made.one(one_of(len(made.images), event, "pictures")))

    def open(self, visit: Visit, made: Made) -> Iterator[Values]:
        """Look at a picture."""
        for values in self._show(visit, Opened(made, len(self.studio.levels) - 1, None, ())):
            yield {**values, self.tabs: gr.update(selected="codes")}

    def choose_place(self, visit: Visit, event: gr.EventData) -> Iterator[Values]:
        """Ask which codes could stand at a place."""
        opened = there(visit.opened)
        level = event.of[0]  # whose map was clicked: the next one may not have been shown yet
        of_level = self.studio.levels[level]
        place = divmod(one_of(of_level.places, event, "places"), of_level.width)
        yield from self._show(visit, opened._replace(level=level, place=place))

    def choose_code(self, visit: Visit, event: gr.EventData) -> Iterator[Values]:
        """Put a code at the place for which it was shown."""
        made, *_, past = there(visit.opened)
        level, *place = event.of
        if made.codes[level][0, *place] != event.choice:
            made, past = self.studio.with_code(made, level, place, int(event.choice)), (*past, made)
        yield from self._show(visit, Opened(made, level, tuple(place), past))

    def choose_level(self, visit: Visit, level: int) -> Iterator[Values]:
        """Look at another level's codes."""
        yield from self._show(visit, there(visit.opened)._replace(level=level, place=None))

    def undo(self, visit: Visit) -> Iterator[Values]:
        """Take the last change back."""
        opened = there(visit.opened)
        if not opened.past:
            raise UserError("there is nothing to undo: this is the picture as it was opened")
        *past, made = opened.past
        yield from self._show(visit, opened._replace(made=made, past=tuple(past)))

    def redraw(self, visit: Visit, seed: float, *choice: Any) -> Iterator[Values]:
        """Draw all codes after the place anew."""
        opened = there(visit.opened).placed()
        made, level, place, past = opened
        sampling = self.studio.sampling(seed, *choice, told=self.studio.class_of(made) is not None)
        steps = visit.until_waited_for(self.studio.redraw(made, level, place, sampling))
        codes: Codes = ()
        for codes in paced(steps, FRAME):
            yield {self.picture: html.marked(self.studio.so_far(codes)[0], None)}
        if visit.is_waited_for:
            yield from self._show(visit, opened)
            return
        changed = self.studio.made(codes, made.labels, redrawn(made, level, place, sampling))
        for values in self._show(visit, Opened(changed, level, place, (*past, made))):
            yield {**values, self.seed: sampling.seed + 1}

    def as_it_was(self, visit: Visit) -> Iterator[Values]:
        """Look again at the picture that was being drawn anew."""
        yield from self._show(visit, there(visit.opened))

    def _show(self, visit: Visit, opened: Opened) -> Iterator[Values]:
        """All parts as they are for a picture, a level and a place, which are what is looked at from now
        on."""
        made, level, place, past = opened
        codes, of_level = made.codes[level][0], self.studio.levels[level]
        title = "Choose a place in the map: here is then said which codes could stand there."
        candidates, square = "", None
        if place is not None:
            found = self.studio.candidates(made, level, place)
            candidates = html.candidates(found, codes[place].item(), (level, *place))
            square = self.studio.square(level, place, made.images.shape[2:])
            title = (
                f"**Row {place[0]}, column {place[1]}**: what the prior expects there, given all codes "
                "before it. Choose one to put it there."
            )
        visit.opened = opened
        with TemporaryDirectory() as folder:
            yield {
                self.nothing: gr.update(visible=False),
                self.column: gr.update(visible=True),
                self.picture: html.marked(made.images[0], square) + self._facts(made),
                self.level: level,
                self.map: html.code_map(codes, of_level, place, level),
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
