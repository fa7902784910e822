"""The parts of the page that Gradio has no component for, as text: pictures to choose from, maps of codes.

Whatever can be chosen is a button with its number in data-choice; choose.js reports it, and the numbers in
data-of, which say what it is one of; and it moves by arrow keys. Names of classes and files are a stranger's:
everything is escaped.
"""

import base64
import io
from collections.abc import Sequence
from html import escape

import torch
from PIL import Image
from torch import Tensor

from vqprior.runtime.codes import Level
from vqprior.runtime.pictures import hot
from vqprior.sampling.decoding import colours

from .made import Place
from .studio import Candidate, Examined
from .upload import Upload

ENLARGED = 128  # pixels: a picture as wide is no longer enlarged everywhere
NUMBERED = 16  # columns of a map at most, whose squares have room for their numbers
BRIGHTNESS = torch.tensor([0.299, 0.587, 0.114])


def data_url(image: Tensor) -> str:
    """A picture uint8 [C, H, W], grey, colour or with an opacity, as a PNG inside of an address."""
    file = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    Image.fromarray(pixels.cpu().numpy()).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def picture(image: Tensor, alt: str) -> str:
    """A picture as it is, which the browser enlarges without smoothing, and makes smaller with."""
    kind = "pixels" if image.shape[2] < ENLARGED else "pixels many"
    return f'<img class="{kind}" src="{data_url(image)}" alt="{escape(alt)}">'


def marked(image: Tensor, square: tuple[slice, slice] | None) -> str:
    """A picture with a frame around some of its pixels."""
    frame = ""
    if square is not None:
        (top, bottom), (left, right) = (
            (100 * side.start / pixels, 100 * side.stop / pixels)
            for side, pixels in zip(square, image.shape[1:], strict=True)
        )
        place = f"top:{top:.3f}%;left:{left:.3f}%;height:{bottom - top:.3f}%;width:{right - left:.3f}%"
        frame = f'<div class="mark" style="{place}"></div>'
    return f'<div class="opened">{picture(image, "the picture that is looked at")}{frame}</div>'


def pictures(images: Tensor, captions: Sequence[str]) -> str:
    """Pictures [N, C, H, W] to choose from, each with a line below."""
    cells = "".join(
        f'<button type="button" class="cell" data-choice="{index}" aria-label="picture {index}, '
        f'{escape(caption)}">{picture(image, "")}<span>{escape(caption)}</span></button>'
        for index, (image, caption) in enumerate(zip(images, captions, strict=True))
    )
    return f'<div class="cells" role="group" aria-label="pictures">{cells}</div>'


def code_map(codes: Tensor, level: Level, chosen: Place | None, number: int) -> str:
    """The codes [h, w] of the level of this number in colours, each to choose; the chosen one is marked."""
    palette, width = colours(level.K), codes.shape[1]
    bright = palette[codes].float() @ BRIGHTNESS > 140  # [h, w]
    at = None if chosen is None else chosen[0] * width + chosen[1]
    cells = []
    for index, code in enumerate(codes.flatten().tolist()):
        row, column = divmod(index, width)
        colour = "#{:02x}{:02x}{:02x}".format(*palette[code].tolist())
        ink = "#000" if bright[row, column] else "#fff"
        text = code if width <= NUMBERED else ""
        pressed = "true" if index == at else "false"
        reachable = 0 if index == (at or 0) else -1  # one stop of the tab key; arrows move inside
        cells.append(
            f'<button type="button" data-choice="{index}" tabindex="{reachable}" aria-pressed="{pressed}" '
            f'style="background:{colour};color:{ink}" title="row {row}, column {column}: code {code}" '
            f'aria-label="row {row}, column {column}: code {code}">{text}</button>'
        )
    style = f"--columns:{width};--rows:{codes.shape[0]};--digits:{len(str(level.K - 1))}"
    label = f"{codes.shape[0]} by {width} codes"
    kind = "codes" if width <= NUMBERED else "codes dense"
    group = f'class="{kind}" role="group" aria-label="{label}" style="{style}" data-of="{number}"'
    return f"<div {group}>{''.join(cells)}</div>"


def candidates(found: Sequence[Candidate], current: int, of: tuple[int, ...]) -> str:
    """Codes that could stand at a place: each with its probability and the picture that it would give.

    Args:
        of: the number of the level, the row and the column.
    """
    cells = "".join(
        f'<button type="button" class="cell" data-choice="{one.code}" '
        f'aria-pressed="{"true" if one.code == current else "false"}" '
        f'aria-label="code {one.code}, {_percent(one.p)}">{picture(one.image, "")}'
        f"<span>code {one.code}<br><b>{_percent(one.p)}</b></span></button>"
        for one in found
    )
    group = f'role="group" aria-label="codes for this place" data-of="{" ".join(map(str, of))}"'
    return f'<div class="cells small" {group}>{cells}</div>'


def _percent(p: float) -> str:
    return f"{100 * p:.0f} %" if p >= 0.01 else "&lt; 1 %"


def examined(uploaded: Upload, found: Examined, levels: Sequence[Level]) -> str:
    """A picture, what its codes give back, its codes in colours, and what they cost where."""
    psnr = "nothing is lost" if found.psnr == float("inf") else f"PSNR {found.psnr:.2f} dB"
    figures = [
        _figure(uploaded.image, "the picture", "as the run sees it"),
        _figure(found.made.images[0], "from its codes", psnr),
    ]
    for index, (level, codes, bits) in enumerate(zip(levels, found.made.codes, found.bits, strict=True)):
        name = f"level {index}, " if len(levels) > 1 else ""
        most = bits.max().item()
        size = f"{level.height} x {level.width} of {level.K}"
        figures.append(_figure(colours(level.K)[codes[0]].permute(2, 0, 1), f"{name}codes", size))
        figures.append(
            _figure(
                hot(bits[None] / max(most, 1e-9))[0],
                f"{name}bits",
                f"{bits.sum().item():.1f} in all, dark 0 to light {most:.1f}",
            )
        )
    bits, places = found.made.bits.item(), sum(level.places for level in levels)
    said = f"{escape(uploaded.about)}.<br><b>{psnr}, {bits:.1f} bits</b>, {bits / places:.2f} a code"
    return f'<p role="status">{said}</p><div class="figures">{"".join(figures)}</div>'


def _figure(image: Tensor, title: str, below: str) -> str:
    alt = f"{title}: {below}"
    caption = f"<b>{escape(title)}</b><br>{escape(below)}"
    return f"<figure>{picture(image, alt)}<figcaption>{caption}</figcaption></figure>"
