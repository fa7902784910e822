"""Stage one on the whole test split: distortion and codebook use."""

from vqprior.runtime.loader import chunks, padded
from vqprior.runtime.pictures import to_float
from vqprior.runtime.processes import share_of_process, sum_numbers
from vqprior.stage1_vqvae.measure import measure

from ..part import Part
from ..ssim import ssim
from ..subject import Subject
from ..tables import Figures, Row, Table, list_table

ROWS = (
    Row("MSE on [0, 1]", "{mse:.5f}"),
    Row("MSE / variance", "{relative_mse:.4f}"),
    Row("PSNR, SSIM", "{psnr:.2f} dB, {ssim:.3f}"),
    Row("codebook perplexity", "{perplexity:.1f} of {K}"),
    Row("codes used", "{usage:.1%}"),
)
TILES = (
    Row("MSE on [0, 1]", "{mse:.5f}"),
    Row("PSNR; SSIM {ssim:.3f}", "{psnr:.2f} dB"),
    Row(
        "codebook perplexity; {usage:.2%} used, in maps of {map[0]} x {map[1]}",
        "{perplexity:.0f} of {K}",
    ),
)


def reconstruction(subject: Subject) -> Figures:
    """Encode and decode each test image."""
    test = subject.data.test
    measured = measure(subject.vqvae, test, channels_last=subject.config.channels_last, **subject.passes)
    figures = measured.figures() | {"ssim": mean_ssim(subject), "images": len(test)}
    return figures | {
        "K": subject.K,
        "map": [*subject.vqvae.map_size],
        "code_counts": measured.counts.tolist(),
    }


def mean_ssim(subject: Subject) -> float:
    """The mean SSIM of test images and their reconstructions."""
    test, batch, device = subject.data.test, subject.config.inference_batch, subject.networks.device
    total = 0.0
    for chunk in chunks(len(test), batch, share_of_process()):
        images = test.images(padded(chunk, batch))
        x, x_hat = (to_float(part[: len(chunk)], device) for part in (images, subject.reconstruct(images)))
        total += ssim(x, x_hat).sum().item()
    return sum_numbers([total])[0] / len(test)


def tables(figures: Figures) -> list[Table]:
    """One list."""
    return [list_table("stage 1: reconstruction of {images:,} test images", ROWS, figures)]


PART = Part("reconstruction", "Stage one in figures", reconstruction, tables, tiles=TILES, key="stage1")
