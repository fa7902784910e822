"""A picture with a hidden part -> completions of it on disk.

OUT/
    completions.png    the picture | what is known of it | completions, the likeliest first
    completions.npz    images uint8 [n, H, W, C], codes int64 [n, h, w], bits and draws [n],
                       hidden bool [H, W], known [h, w]; of several levels codes0, known0 and so on
    completions.json   the settings and the bits of each; written last

Everything hidden is painted over from the known pixels BEFORE the picture is resized: resizing mixes
neighbours, and what is behind the mask must reach no known pixel.
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vqprior.configs.commands import Complete
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data
from vqprior.runtime import checkpoint
from vqprior.runtime.data import value_range
from vqprior.runtime.data.decode import Decoded, decode
from vqprior.runtime.data.transform import central, placed, prepare
from vqprior.runtime.files import write_file, write_json
from vqprior.runtime.pictures import grid, save_png
from vqprior.runtime.processes import say
from vqprior.runtime.run_dir import RunDir
from vqprior.runtime.unfinished import refuse_others

from .arguments import as_levels, by_level
from .generator import Completions, Generator
from .labels import label_of_text
from .masks import GREY, box, fill, half

COLUMNS = 10  # of the picture, at most
WHITE = 128  # of 255, and more: hidden


def complete(settings: Complete, run: RunDir) -> Path:
    """Complete a picture as `settings` say and write what comes out; the folder it is in.

    Raises:
        UserError: a file that is missing or no picture, a box outside of it, an unknown class or none where
            one is needed, guidance of a prior that was not trained for it, or a run that is not finished.
    """
    data, out = run.config().data, settings.folder(run.path)
    refuse_others(out, "complete", ["completions.json", "completions.npz"])
    photo = read_picture(settings.image, "image")
    try:
        data = _with_range(data, photo, settings.image)
        original = prepared(photo, data)
    except UserError as error:
        raise UserError(f"{settings.image}, which --image names: {error}") from error
    whole = _whole(photo, data)  # [C, H', W'], the size of the photo
    mask = _mask(settings, *whole.shape[1:])
    # A pixel that is partly covered is hidden; resizing spreads what was painted a little beyond, and nothing
    # hidden
    seen, hidden = prepared(_picture(fill(whole, mask)), data), _covered(mask, data)

    generator = Generator.from_run(run.path)
    label = label_of_text(settings.label, generator.label_names) if settings.label else None
    done = generator.complete(
        seen.permute(1, 2, 0).numpy(),
        hidden.numpy(),
        n=settings.images,
        draws=settings.draws or settings.images,
        labels=label,
        seed=settings.seed,
        guidance=settings.guidance,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        batch_size=settings.batch_size,
        precision=settings.precision,
        method=settings.method,
        verify=settings.verify,
    )

    out.mkdir(parents=True, exist_ok=True)
    (out / "completions.json").unlink(missing_ok=True)
    shown = torch.cat([torch.stack([original, torch.where(hidden, GREY, seen)]), _stacked(done)])
    write_file(out / "completions.npz", lambda path: _save(path, done, hidden))
    save_png(out / "completions.png", grid(shown, min(len(shown), COLUMNS)))
    of_levels = as_levels(done.known)
    known, codes = sum(int(mask.sum()) for mask in of_levels), sum(mask.size for mask in of_levels)
    figures = {
        "codes_known": known,
        "codes_drawn": codes - known,
        "bits": done.bits.tolist(),
    }
    write_json(
        out / "completions.json",
        asdict(settings) | {"prior": checkpoint.best(run.stage2).fingerprint} | figures,
    )
    say(
        f"complete: {known} of {codes} codes are known; "
        f"{settings.images} of {settings.draws or settings.images} draws, "
        f"from {done.bits[0]:.1f} to {done.bits[-1]:.1f} bits an image, "
        f"in {out / 'completions.png'}"
    )
    return out


def read_picture(path: str, flag: str) -> Decoded:
    """A picture in a file, upright.

    Raises:
        UserError: there is no such file, or it is no picture.
    """
    if not Path(path).is_file():
        raise UserError(f"there is no file {path}, which --{flag} names")
    try:
        return decode(Path(path).read_bytes(), f"{path}, which --{flag} names,")
    except OSError as error:
        raise UserError(f"{path}, which --{flag} names, cannot be read ({error.strerror})") from error


def _with_range(data: Data, photo: Decoded, path: str) -> Data:
    """The settings, with the range of this photo where the run learnt from pictures of 8 bits and it has
    more.

    Raises:
        UserError: it is of one value.
    """
    if not isinstance(photo, np.ndarray) or data.range != "auto":
        return data
    low, high = value_range.measured([photo])
    say(f"complete: {path} has more than 8 bits; by what it holds, {low:g} is black and {high:g} white")
    return replace(data, range=(low, high))


def _whole(photo: Decoded, data: Data) -> Tensor:
    """The photo, converted but not resized, as uint8 [C, H', W']."""
    height, width = photo.shape[:2] if isinstance(photo, np.ndarray) else (photo.height, photo.width)
    return torch.tensor(prepare(photo, replace(data, size=(height, width), crop=0, margin=0)))


def _picture(pixels: Tensor) -> Image.Image:
    """uint8 [C, H', W'] as a picture of Pillow."""
    return Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy())


def prepared(photo: Decoded, data: Data) -> Tensor:
    """The photo as the networks see it, uint8 [C, H, W]."""
    return central(torch.tensor(prepare(photo, data))[None], data)[0]


def _covered(mask: Tensor, data: Data) -> Tensor:
    """The pixels of the prepared picture, bool [H, W], of which a mask of the photo, bool [H', W'], covers
    any part."""
    # In floats: of a large photo a small hole is less of a pixel than 8 bits can tell from none
    share = placed(Image.fromarray(mask.float().numpy()), data, resampling=Image.Resampling.BOX)
    return central(torch.tensor(share)[None, None], data)[0, 0] > 0


def _mask(settings: Complete, height: int, width: int) -> Tensor:
    """What the settings hide of a photo, bool [H', W']."""
    if settings.hide:
        return half(settings.hide, height, width)
    if settings.box:
        return box(*settings.box, height, width)
    drawn = _whole(read_picture(settings.mask, "mask"), Data(channels=1))[0].numpy()
    if 0 < drawn.max() < WHITE:
        raise UserError(
            f"the mask {settings.mask} hides nothing: its lightest pixel is {drawn.max()} of 255, and a mask "
            f"is white, {WHITE} or more, where the photo is hidden; save 0 and 1 as 0 and 255"
        )
    return torch.tensor(
        np.asarray(Image.fromarray(drawn).resize((width, height), Image.Resampling.NEAREST)) >= WHITE
    )


def _stacked(done: Completions) -> Tensor:
    """The images of the completions, [n, C, H, W]."""
    return torch.from_numpy(done.images).permute(0, 3, 1, 2)


def _save(path: Path, done: Completions, hidden: Tensor) -> None:
    codes, known = (by_level(name, getattr(done, name)) for name in ("codes", "known"))
    others = {name: getattr(done, name) for name in ("images", "bits", "draws")}
    with open(path, "wb") as file:
        np.savez(file, **others, **codes, **known, hidden=hidden.numpy())
