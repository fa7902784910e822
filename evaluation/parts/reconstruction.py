"""Stage one on the whole test split: distortion and codebook use."""

from vqprior.runtime.chunks import chunks
from vqprior.runtime.pictures import to_float
from vqprior.runtime.processes import share_of_process, sum_numbers
from vqprior.stage1_vqvae.measure import measure

from ..part import Part
from ..ssim import ssim
from ..subject import Subject
from ..tables import Column, Figures, Row, Table, column_table, list_table

ROWS = (
    Row("MSE on [0, 1]", "{mse:.5f}"),
    Row("MSE / variance", "{relative_mse:.4f}"),
    Row("PSNR, SSIM", "{psnr:.2f} dB, {ssim:.3f}"),
    Row("codebook perplexity", "{perplexity:.1f} of {K}", "perplexity"),
    Row("codes used", "{usage:.1%}", "perplexity"),
)
LEVELS = (
    Column("map", "{map[0]}x{map[1]}"),
    Column("perplexity", "{perplexity:.1f}"),
    Column("used", "{usage:.1%}"),
    Column("MSE swapped", "{swapped_mse:.5f}"),
)
SWAPPED = "MSE swapped: that of reconstructions with the codes of this level from another picture."
EMPTY = 1.05  # times the MSE: a level without whose codes it is no larger carries nothing
TILES = (
    Row("MSE on [0, 1]", "{mse:.5f}"),
    Row("PSNR; SSIM {ssim:.3f}", "{psnr:.2f} dB"),
    Row(
        "codebook perplexity; {usage:.2%} used, in maps of {map[0]} x {map[1]}",
        "{perplexity:.0f} of {K}",
        "perplexity",
    ),
)


def reconstruction(subject: Subject) -> Figures:
    """Encode and decode each test image."""
    test = subject.data.test
    layout = subject.config.channels_last
    measured = measure(subject.vqvae, test, channels_last=layout, name="reconstructions", **subject.passes)
    of_levels = [
        {"map": [*level.size], "code_counts": carried.counts.flatten().tolist(), **carried.figures()}
        for level, carried in zip(subject.levels, measured.levels, strict=True)
    ]
    figures = measured.of_images() | {"ssim": mean_ssim(subject), "images": len(test), "K": subject.vqvae.K}
    return figures | (of_levels[0] if len(of_levels) == 1 else {"levels": of_levels})


def mean_ssim(subject: Subject) -> float:
    """The mean SSIM of test images and their reconstructions."""
    test, batch, device = subject.data.test, subject.config.inference_batch, subject.vqvae.device
    total = 0.0
    for chunk in chunks(len(test), batch, share_of_process(), name="ssim"):
        images = test.images(chunk.padded)
        x, x_hat = (to_float(chunk.own(part), device) for part in (images, subject.reconstruct(images)))
        total += ssim(x, x_hat).sum().item()
    return sum_numbers([total])[0] / len(test)


def tables(figures: Figures) -> list[Table]:
    """One list; of several levels what each of them carries, too."""
    title = "stage 1: reconstruction of {images:,} test images"
    shown = [list_table(title, ROWS, figures, warning=nothing_kept(figures))]
    if levels := figures.get("levels"):
        rows = {f"level {number}": level for number, level in enumerate(levels)}
        warning = "" if nothing_kept(figures) else empty_levels(figures)
        shown.append(
            column_table("what each level carries", LEVELS, rows, figures, note=SWAPPED, warning=warning)
        )
    return shown


def nothing_kept(figures: Figures) -> str:
    """That stage one is no better than one grey for all pictures, and what to do; nothing where it is."""
    if figures.get("relative_mse", 0) < 1:
        return ""
    return (
        "Reconstructions are no better than one grey, the mean of all pictures: stage one has learnt too "
        "little (more stage1.steps), and what it loses no prior brings back."
    )


def empty_levels(figures: Figures) -> str:
    """Which levels carry nothing, and what to do; nothing where all carry something."""
    most = EMPTY * figures["mse"]
    empty = [
        f"level {number}" for number, level in enumerate(figures["levels"]) if level["swapped_mse"] < most
    ]
    if not empty:
        return ""
    return (
        f"{' and '.join(empty)} {'carry' if len(empty) > 1 else 'carries'} nothing: pictures are as good "
        "with another picture's codes there. Take fewer levels (--stage1.levels), or a larger "
        "--stage1.factor, so that the finest one does not say it all."
    )


PART = Part(
    "reconstruction",
    "Stage one in figures",
    reconstruction,
    tables,
    needs_priors=False,
    tiles=TILES,
    key="stage1",
)
