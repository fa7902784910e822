"""New pictures, which appear as they are drawn."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from .made import settings_of
from .parts import QUIETLY, TO_GALLERY, Gallery, Values, chosen, class_list, next_seed, spoken
from .studio import MOST, Studio

HINT = "Press Draw. Then choose a picture to see its codes and change them."


class DrawTab:
    """Made inside of a `gr.Tab`."""

    def __init__(self, studio: Studio):
        self.studio, defaults = studio, studio.defaults
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                label = class_list(studio, "Class", "all in turn")
                count = gr.Slider(1, MOST, 20, step=1, precision=0, label="Number")
                seed = gr.Number(defaults.seed, label="Seed", precision=0, minimum=0)
                others = gr.Button("Next seed", size="sm")
                with gr.Row():
                    draw = gr.Button("Draw", variant="primary", min_width=100, elem_id="draw")
                    stop = gr.Button("Stop", min_width=100)
                with gr.Accordion("How codes are chosen"):
                    self.choice = [
                        slider("Temperature", 0.1, 2, defaults.temperature, 0.05),
                        slider("Top-p", 0.05, 1, defaults.top_p, 0.05),
                        slider("Guidance", 0, 6, defaults.guidance, 0.25, visible=studio.takes_guidance),
                        gr.Radio(
                            [("row by row", "auto"), ("settling from noise", "parallel")],
                            value="auto",
                            label="How pictures appear",
                            info="Both end in the same pictures.",
                        ),
                    ]
            with gr.Column(scale=3, min_width=320):
                self.gallery = Gallery(studio, "drawn", HINT)

        self.given = [label, count, seed, *self.choice]
        begun = gr.on(
            [draw.click, seed.submit], spoken(self.draw), self.given, self.gallery.outputs, **QUIETLY
        )
        draw.click(None, js=TO_GALLERY, **QUIETLY)
        stop.click(None, cancels=[begun], **QUIETLY)
        next_seed(others, seed, draw, begun)

    def draw(self, label: int, count: int, seed: float, *choice: Any) -> Iterator[Values]:
        """Draw pictures 0 to count - 1 of a seed."""
        sampling = self.studio.sampling(seed, *choice)
        labels = self.studio.labels(chosen(label), count)
        settings = {"class": self.studio.class_name(chosen(label)), **settings_of(sampling)}
        yield from self.gallery.appear(self.studio.draw(labels, count, sampling), count, labels, settings)


def slider(
    label: str, least: float, most: float, value: float, step: float, *, visible: bool = True
) -> gr.Slider:
    """A slider that begins at the run's own value, wherever that lies."""
    ends = min(least, value), max(most, value)
    return gr.Slider(*ends, value, step=step, label=label, visible=visible)
