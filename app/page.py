"""The page. All that a visitor has made is in the page's own state, a copy for each visitor.

Gradio is imported here and in the files of the tabs, and nowhere else in vqprior.
"""

import gradio as gr

from vqprior.runtime.codes import in_words

from . import html
from .codes_tab import CodesTab
from .draw_tab import DrawTab
from .parts import kept_on_reload
from .picture_tab import PictureTab
from .studio import Studio
from .visit import AT_ONCE


def build(studio: Studio) -> gr.Blocks:
    """The page of a run."""
    kept = (600, 3600)  # seconds: how often files are looked for, and how old those are that go
    with gr.Blocks(title=f"vqprior: {studio.name}", delete_cache=kept, analytics_enabled=False) as page:
        gr.Markdown(_about(studio))
        with gr.Tabs() as tabs:
            with gr.Tab("Draw", id="draw"):
                drawing = DrawTab(studio)
            with gr.Tab("Codes", id="codes"):
                codes = CodesTab(studio, drawing.choice, tabs)
            codes.opens(drawing.gallery)
            if studio.takes_pictures:
                with gr.Tab("Your picture", id="picture"):
                    codes.opens(PictureTab(studio, drawing.choice, codes).gallery)
        kept_on_reload(page, drawing.given)
    return page.queue(default_concurrency_limit=AT_ONCE)


def _about(studio: Studio) -> str:
    """The run in a few words."""
    kinds = ", ".join(
        dict.fromkeys(type(prior).__module__.split(".")[-2] for prior in studio.networks.priors)
    )
    classes = f"{len(studio.label_names)} classes" if studio.label_names else "no classes"
    height, width = studio.data.size
    size = f"pictures of {width} x {height}" if studio.takes_pictures else "imported codes, shown as colours"
    about = f"{size}, {in_words(studio.levels)}, {kinds}, {classes}, on {studio.networks.device}"
    if not studio.takes_pictures:
        about += "<br>There is no VQ-VAE, so that your own pictures cannot be read or completed."
    return f"## {html.escape(studio.name)}\n{about}"
