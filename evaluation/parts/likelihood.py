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
from ..tables import Column, Figures, Row, Table, column_table, list_table

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
LEVELS = (
    Column("bits/code", "{bits_per_code:.3f}"),
    Column("on train", "{bits_per_code_train:.3f}"),
    Column("per place", "{per_position_bits_per_code:.3f}"),
    Column("unigram", "{unigram_bits_per_code:.3f}"),
    Column("bits/image", "{bits_per_image:.1f}"),
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
    """Bits of held-out codes; of several levels of each given those above, too."""
    of_levels = [of_level(subject, level) for level in range(len(subject.levels))]
    figures = of_levels[0] if len(of_levels) == 1 else {"levels": of_levels, **in_all(of_levels, subject)}
    figures |= {"images": len(subject.maps.split("test"))}
    return figures | bits_per_dim(subject, figures["bits_per_image"]) | posterior(subject)


def of_level(subject: Subject, level: int) -> Figures:
    """The bits of one level's codes, given those of the levels above."""
    train, test = (subject.maps.split(name).down_to(level) for name in ("train", "test"))
    prior = subject.networks.priors[level]
    by_position = bits_by_position(prior, test, name="bits", **subject.passes)
    on_train = bits_by_position(prior, train, images=len(test), name="bits on train", **subject.passes)
    bits, held_out = by_position.mean().item(), position_counts(test, subject.levels[level])
    unigram, per_position = subject.frequencies[level]
    return {
        "bits_per_code": bits,
        "nats_per_code": bits * math.log(2),
        "bits_per_image": bits * by_position.numel(),
        "bits_per_code_train": on_train.mean().item(),
        "unigram_bits_per_code": cross_entropy_bits(held_out, unigram),
        "per_position_bits_per_code": cross_entropy_bits(held_out, per_position),
        "bits_by_position": by_position.tolist(),
    }


def in_all(of_levels: list[Figures], subject: Subject) -> Figures:
    """The same figures of the codes of all levels together."""
    places = [level.places for level in subject.levels]
    names = [name for name in of_levels[0] if name not in ("bits_by_position", "bits_per_image")]
    pairs = list(zip(places, of_levels, strict=True))
    means = {name: sum(n * level[name] for n, level in pairs) / sum(places) for name in names}
    return means | {"bits_per_image": sum(level["bits_per_image"] for level in of_levels)}


def bits_per_dim(subject: Subject, bits_per_image: float) -> Figures:
    """The bound in bits/dim, where the decoder has a likelihood."""
    if subject.data is None or not subject.vqvae.likelihood.is_probability:
        return {}
    vqvae, test = subject.vqvae, subject.maps.split("test")
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
    accuracy = posterior_accuracy(subject.networks.priors, test, images=count, **subject.passes)
    return {"posterior_accuracy": accuracy, "posterior_images": count}


def tables(figures: Figures) -> list[Table]:
    """One list; of several levels what each of them costs, too."""
    title = "stage 2: prior of the codes of {images:,} test images"
    shown = [list_table(title, ROWS, figures, warning=no_neighbours(figures))]
    if levels := figures.get("levels"):
        rows = {f"level {number}": level for number, level in enumerate(levels)}
        shown.append(column_table("bits of each level, given those above", LEVELS, rows, figures))
    return shown


def no_neighbours(figures: Figures) -> str:
    """That the prior gains nothing by what it sees, and what to do; nothing where it gains."""
    bits, by_place = (figures.get(name) for name in ("bits_per_code", "per_position_bits_per_code"))
    if bits is None or by_place is None or bits < by_place:
        return ""
    return (
        "The prior is no better than the per-position model, which sees no other code: it has learnt too "
        "little (more stage2.steps) or by heart (docs/curves.md)."
    )


PART = Part(
    "likelihood",
    "Stage two in figures",
    likelihood,
    tables,
    (row_size,),
    needs_pictures=False,
    tiles=TILES,
    key="stage2",
)
