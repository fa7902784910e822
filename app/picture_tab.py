"""A visitor's picture: its codes and what they cost; a part of it hidden and drawn anew."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from torch import Tensor

from vqprior.configs.commands import Half
from vqprior.configs.errors import UserError
from vqprior.sampling.masks import half

from . import html
from .codes_tab import CodesTab
from .made import Made, settings_of
from .parts import (
    PAINT,
    QUIETLY,
    TO_GALLERY,
    Gallery,
    Values,
    chosen,
    class_list,
    next_seed,
    spoken,
    there,
    uploads_alone,
)
from .studio import MOST, Studio
from .upload import Upload, read_upload
from .visit import Visit

HINT = "Upload a picture: its codes, what they give back, and what they cost under the prior."
SETTINGS = "Its class is the one above; temperature, top-p and guidance are those of the tab Draw."
PAINTER = """<div class="painter"><canvas tabindex="0" role="application" aria-label="The picture: paint over
what is to be hidden. Arrow keys move the brush, space paints."></canvas>
<label>Brush <input type="range" min="1" max="${value ? Math.ceil(value.width / 2) : 8}"
value="${value ? value.square : 4}"></label></div>"""
HALVES: tuple[Half, ...] = ("upper half", "lower half", "left half", "right half")


class PictureTab:
    """Made inside of a `gr.Tab`.

    Args:
        choice: the components that say how codes are chosen.
        codes: the tab of codes.
    """

    def __init__(self, studio: Studio, choice: list[Any], codes: CodesTab):
        self.studio, self.codes = studio, codes
        self.uploaded, self.hidden = gr.State(), gr.State("")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                file = uploads_alone(
                    gr.File(label="A picture", type="filepath", height=130, elem_id="upload")
                )
                label = class_list(studio, "Its class", "not told", only_names=not studio.takes_guidance)
            with gr.Column(scale=3, min_width=320):
                self.examined = gr.HTML(f'<p class="hint">{HINT}</p>', elem_id="examined")
                self.open_button = gr.Button("Look at its codes", visible=False, size="sm")
        with gr.Column(visible=False) as self.column:
            gr.Markdown("### Hide a part, and see what could be there")
            with gr.Row():
                with gr.Column(scale=1, min_width=280):
                    self.painter = gr.HTML(html_template=PAINTER, js_on_load=PAINT, elem_id="painter")
                    with gr.Row():
                        covers = [gr.Button(name, size="sm", min_width=105) for name in (*HALVES, "nothing")]
                    count = gr.Slider(1, MOST, 12, step=1, precision=0, label="Number of completions")
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0)
                    others = gr.Button("Next seed", size="sm")
                    with gr.Row():
                        complete = gr.Button("Complete", variant="primary", min_width=100, elem_id="complete")
                        stop = gr.Button("Stop", min_width=100)
                    gr.HTML(f'<p class="hint">{SETTINGS}</p>')
                with gr.Column(scale=3, min_width=320):
                    self.gallery = Gallery(studio, "completions")

        own, painted = [self.uploaded, label], [self.painter, self.hidden]
        parts = [self.uploaded, self.open_button, self.column, *painted]
        given = [self.uploaded, self.hidden, label, count, seed, *choice]
        begun = complete.click(spoken(self.complete), given, self.gallery.outputs, **QUIETLY)
        complete.click(None, js=TO_GALLERY, **QUIETLY)
        stop.click(None, cancels=[begun], **QUIETLY)
        next_seed(others, seed, complete, begun)
        # One at a time, since a large picture takes gigabytes, but each: the last is shown last
        one_by_one = dict(concurrency_limit=1, trigger_mode="multiple", **QUIETLY)
        read = file.upload(spoken(self.upload), [file], parts, **one_by_one)
        read.success(self.gallery.nothing, None, self.gallery.outputs, cancels=[begun], **QUIETLY)
        # In one queue, so that the figures of what is there no longer are not shown last; of classes that are
        # chosen faster than measured the last is measured too
        examining = dict(concurrency_id="examine", concurrency_limit=1, **QUIETLY)
        for event in (label.input, read.success):
            event(spoken(self.examine), own, [self.examined], trigger_mode="always_last", **examining)
        codes.on(self.open_button.click, self.open, *own)
        self.painter.paint(_hidden, None, [self.hidden], queue=False, **QUIETLY)
        for name, button in zip((*HALVES, None), covers, strict=True):
            button.click(spoken(partial(self.cover, name)), [self.uploaded], painted, **QUIETLY)

    def upload(self, file: str) -> Values:
        """Take a visitor's picture."""
        uploaded = read_upload(Path(file).read_bytes(), Path(file).name, self.studio.data)
        return {
            self.uploaded: uploaded,
            self.open_button: gr.update(visible=True),
            self.column: gr.update(visible=True),
            **self.cover("lower half", uploaded),
        }

    def examine(self, uploaded: Upload | None, label: int) -> Values:
        """What a picture's codes give back and what they cost."""
        if uploaded is None:  # another class was chosen before
            return {self.examined: gr.skip()}
        found = self.studio.examine(uploaded.image, chosen(label))
        return {self.examined: html.examined(uploaded, found, self.studio.levels)}

    def open(self, visit: Visit, uploaded: Upload | None, label: int) -> Iterator[Values]:
        """Look at its codes."""
        yield from self.codes.open(visit, self.studio.examine(there(uploaded).image, chosen(label)).made)

    def cover(self, name: Half | None, uploaded: Upload | None) -> Values:
        """Hide half of the picture, or nothing."""
        uploaded = there(uploaded)
        height, width = uploaded.image.shape[1:]
        covered = half(name, height, width) if name else torch.zeros(height, width, dtype=torch.bool)
        hidden = "".join(map(str, covered.int().flatten().tolist()))
        square = height // self.studio.levels[-1].height
        value = {"source": html.data_url(uploaded.image), "width": width, "height": height, "square": square}
        return {self.painter: {**value, "hidden": hidden}, self.hidden: hidden}

    def complete(
        self, uploaded: Upload | None, hidden: str, label: int, count: int, seed: float, *choice: Any
    ) -> Iterator[Values]:
        """Draw completions, the likeliest first once they are done."""
        uploaded, label = there(uploaded), chosen(label)
        covered = mask_of(hidden, uploaded.image)
        sampling = self.studio.sampling(seed, *choice, told=label is not None)
        labels = self.studio.told(label, count)
        steps = self.studio.complete(uploaded.image, covered, labels, count, sampling)
        settings = {"class": self.studio.class_name(label), **settings_of(sampling)}

        def finish(made: Made) -> tuple[Made, list[str]]:
            made = made.sorted()
            images = torch.where(covered, made.images, uploaded.image)
            return made._replace(images=images), [f"{bits:.1f} bits" for bits in made.bits.tolist()]

        settings |= {"completes": uploaded.about, "hidden": hidden}
        yield from self.gallery.appear(steps, count, labels, settings, finish)


def _hidden(event: gr.EventData) -> str:
    """What a visitor has painted over, as a text of 0 and 1, row by row."""
    return str(event.hidden)


def mask_of(hidden: str, image: Tensor) -> Tensor:
    """That text as bool [H, W], of a picture [C, H, W].

    Raises:
        UserError: it hides nothing, or is of another size.
    """
    height, width = image.shape[1:]
    if len(hidden) != height * width or "1" not in hidden:
        raise UserError("nothing is hidden: paint over a part of the picture first")
    return torch.tensor([one == "1" for one in hidden]).view(height, width)
