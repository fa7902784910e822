"""What the codes of the test split cost under the prior, and under models that know no neighbours."""

import math

from vqprior.stage1_vqvae.measure import decoder_bits_per_dim
from vqprior.stage2_prior.measure import (
    bits_by_position,
    cross_entropy_bits,
    position_counts,
    posterior_accuracy,
)

from ..part import Part, row_size
from ..subject import Subject
from ..tables import Figures, Row, Table, list_table

POSTERIOR = 200_000  # maps times classes at most, each a forward, to find arg max p(codes | label)
DECODER_AND_PRIOR = "{decoder_bits_per_dim:.3f} of the decoder + {prior_bits_per_dim:.3f} of the prior"
ROWS = (
    Row("NLL", "{bits_per_code:.3f} bits/code ({nats_per_code:.3f} nats/code)"),
    Row("NLL of an image", "{bits_per_image:.1f} bits"),
    Row("at most, for the pixels", "{bits_per_dim:.3f} bits/dim: " + DECODER_AND_PRIOR, "bits_per_dim"),
    Row("NLL on train", "{bits_per_code_train:.3f} bits/code"),
    Row("per-position model", "{per_position_bits_per_code:.3f} bits/code"),
    Row("unigram model", "{unigram_bits_per_code:.3f} bits/code"),
    Row(
        "arg max p(codes | label) is right",
        "{posterior_accuracy:.2%} of {posterior_images:,}",
        "posterior_accuracy",
    ),
)
TILES = (
    Row("bits/code; on train {bits_per_code_train:.3f}", "{bits_per_code:.3f}"),
    Row("bits an image", "{bits_per_image:.1f}"),
    Row(
        "bits/dim at most, of them {prior_bits_per_dim:.3f} of the prior",
        "{bits_per_dim:.3f}",
        "bits_per_dim",
    ),
)


def likelihood(subject: Subject) -> Figures:
    """Bits of held-out codes."""
    train, test = (subject.maps.split(name) for name in ("train", "test"))
    by_position = bits_by_position(subject.prior, test, **subject.passes)
    on_train = bits_by_position(subject.prior, train, images=len(test), **subject.passes)
    bits, held_out = by_position.mean().item(), position_counts(test, subject.K)
    unigram, per_position = subject.frequencies
    figures = {
        "bits_per_code": bits,
        "nats_per_code": bits * math.log(2),
        "bits_per_image": bits * by_position.numel(),
        "bits_per_code_train": on_train.mean().item(),
        "unigram_bits_per_code": cross_entropy_bits(held_out, unigram),
        "per_position_bits_per_code": cross_entropy_bits(held_out, per_position),
        "bits_by_position": by_position.tolist(),
        "images": len(test),
    }
    return figures | bits_per_dim(subject, figures["bits_per_image"]) | posterior(subject)


def bits_per_dim(subject: Subject, bits_per_image: float) -> Figures:
    """The bound in bits/dim, where the decoder has a likelihood."""
    vqvae, test = subject.vqvae, subject.maps.split("test")
    if not vqvae.likelihood.is_probability:
        return {}
    layout = subject.config.channels_last
    decoder = decoder_bits_per_dim(vqvae, subject.data.test, test, channels_last=layout, **subject.passes)
    prior = bits_per_image / math.prod((vqvae.channels, *vqvae.image_size))
    return {"decoder_bits_per_dim": decoder, "prior_bits_per_dim": prior, "bits_per_dim": decoder + prior}


def posterior(subject: Subject) -> Figures:
    """How often the label under which the codes are likeliest is the right one, where there are labels."""
    if not subject.label_names:
        return {}
    count = min(subject.n, max(1, POSTERIOR // len(subject.label_names)))
    test = subject.maps.split("test")
    accuracy = posterior_accuracy(subject.prior, test, images=count, **subject.passes)
    return {"posterior_accuracy": accuracy, "posterior_images": count}


def tables(figures: Figures) -> list[Table]:
    """One list."""
    return [list_table("stage 2: prior of the codes of {images:,} test images", ROWS, figures)]


PART = Part("likelihood", "Stage two in figures", likelihood, tables, (row_size,), tiles=TILES, key="stage2")
