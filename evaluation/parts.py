"""The parts of an evaluation: each looks at a subject and gives figures by name."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.runtime.loader import chunks, padded
from vqprior.runtime.pictures import pairs, save_png, to_float
from vqprior.runtime.processes import on_main, share_of_process, sum_numbers
from vqprior.stage1_vqvae.measure import decoder_bits_per_dim, measure
from vqprior.stage2_prior.measure import bits_by_position, cross_entropy_bits, position_counts, posterior_accuracy

from .classifier import Classifier, Labelled
from .distances import Gaussian, frechet, kid, prdc
from .features import CLASSIFIER, Extractor, features_at, features_of
from .nearest import Points, copy_share, nearest
from .rows import Images, read_archive
from .ssim import ssim
from .subject import ROWS, SEED, Subject

Figures = dict[str, Any]
PAGE = 32  # samples shown beside their nearest training images
POSTERIOR = 200_000  # maps times classes at most, each a forward, to see whether arg max p(codes | label) is right
NEIGHBOURS = 5  # k of precision, recall, density and coverage


def reconstruction(subject: Subject) -> Figures:
    """Distortion and codebook use on the whole test split."""
    config, test, device = subject.config, subject.data.test, subject.networks.device
    found = measure(subject.vqvae, test, channels_last=config.channels_last, **subject.how)
    total = 0.0
    for chunk in chunks(len(test), config.inference_batch, share_of_process()):
        images = test.images(padded(chunk, config.inference_batch))
        x, x_hat = (to_float(part[: len(chunk)], device) for part in (images, subject.reconstruct(images)))
        total += ssim(x, x_hat).sum().item()
    figures = found.figures() | {"ssim": sum_numbers([total])[0] / len(test), "images": len(test)}
    return figures | {"K": subject.K, "map": [*subject.vqvae.map_size], "code_counts": found.counts.tolist()}


def likelihood(subject: Subject) -> Figures:
    """What held-out codes cost under the prior, and under models that know no neighbours."""
    train, test = (subject.maps.split(name) for name in ("train", "test"))
    by_position = bits_by_position(subject.prior, test, **subject.how)
    seen = bits_by_position(subject.prior, train, images=len(test), **subject.how)
    bits, held_out = by_position.mean().item(), position_counts(test, subject.K)
    unigram, per_position = subject.frequencies
    figures: Figures = {
        "bits_per_code": bits,
        "nats_per_code": bits * math.log(2),
        "bits_per_image": bits * by_position.numel(),
        "bits_per_code_train": seen.mean().item(),
        "unigram_bits_per_code": cross_entropy_bits(held_out, unigram),
        "per_position_bits_per_code": cross_entropy_bits(held_out, per_position),
        "bits_by_position": by_position.tolist(),
        "images": len(test),
    }
    if subject.vqvae.likelihood.is_probability:
        layout = subject.config.channels_last
        decoder = decoder_bits_per_dim(subject.vqvae, subject.data.test, test, channels_last=layout, **subject.how)
        prior = figures["bits_per_image"] / math.prod((subject.vqvae.channels, *subject.vqvae.image_size))
        figures |= {"decoder_bits_per_dim": decoder, "prior_bits_per_dim": prior, "bits_per_dim": decoder + prior}
    if subject.label_names:
        count = min(subject.n, max(1, POSTERIOR // len(subject.label_names)))
        figures["posterior_accuracy"] = posterior_accuracy(subject.prior, test, images=count, **subject.how)
        figures["posterior_images"] = count
    return figures


def ladder(subject: Subject) -> Figures:
    """Each row against real test images, in one space of features."""
    extractor, count = subject.extractor, subject.n
    real = _features(subject, extractor, "test")
    gaussian = on_main(Gaussian.of, real)

    def compare(name: str) -> Figures:
        fake = _features(subject, extractor, name)
        return on_main(_distances, real, gaussian, fake)

    rows = {name: compare(name) for name in ROWS}
    return {"features": extractor.name, "distance": extractor.distance, "images": count, "rows": rows}


def _features(subject: Subject, extractor: Extractor, name: str) -> Tensor:
    return features_of(extractor, subject.row(name), subject.n, subject.config.inference_batch)


def _distances(real: Tensor, gaussian: Gaussian, fake: Tensor) -> Figures:
    mean, deviation = kid(real, fake, seed=SEED)
    found = prdc(real, fake, k=min(NEIGHBOURS, len(real) - 1, len(fake) - 1))
    return {"frechet": frechet(gaussian, Gaussian.of(fake)), "kid": mean, "kid_std": deviation, **found}


def labels(subject: Subject) -> Figures:
    """Whether samples carry the label asked for, and what a classifier learns from them (CAS)."""
    real, count = subject.classifier("all"), subject.n
    test, every = subject.data.test, len(subject.data.test)
    accuracy = lambda model, images, truth: _accuracy(subject, model, images, truth)
    asked = subject.sample_labels()
    _, chosen = subject.real(test)
    figures: Figures = {
        "images": count,
        "classifier_accuracy": accuracy(real, test.images, test.labels),
        "label_accuracy": accuracy(real, subject.row("samples"), asked),
        "label_accuracy_reconstructions": accuracy(real, subject.row("reconstructions"), test.labels[chosen]),
        "cas": {},
    }
    for name in ("train", "train_reconstructions", "samples"):
        figures["cas"][name] = accuracy(subject.classifier(name), test.images, test.labels)
    return figures | {"test_images": every}


def _accuracy(subject: Subject, model: Classifier, images: Images, truth: Tensor) -> float:
    """Share of images to which the classifier gives their label."""
    hits, batch = 0, subject.config.inference_batch
    for chunk in chunks(len(truth), batch, share_of_process()):
        with torch.no_grad():
            logits = model(to_float(images(padded(chunk, batch)), subject.networks.device, channels_last=True))
        hits += (logits.argmax(1).cpu()[: len(chunk)] == truth[chunk]).sum().item()
    return sum_numbers([hits])[0] / len(truth)


def archive(subject: Subject, path: Path, name: str, content: str) -> Figures:
    """Samples from elsewhere, in one row of all that the ladder and the labels say of samples.

    Args:
        name: of the classifier that learns from them.
        content: digest of the file.

    Raises:
        UserError: it does not hold images like those of the data, or not their labels.
    """
    data, classes = subject.config.data, len(subject.label_names)
    images, asked = read_archive(path, (data.channels, *data.size), subject.label_names)
    count, batch = min(subject.n, len(images)), subject.config.inference_batch
    if asked is not None and classes and not ((asked >= 0) & (asked < classes)).all():
        raise UserError(f"{path} holds labels from {asked.min()} to {asked.max()}; expected 0 to {classes - 1}")
    given: Images = lambda indices: images[indices]
    extractor = subject.extractor
    real, fake = _features(subject, extractor, "test"), features_of(extractor, given, count, batch)
    figures: Figures = {"images": count, "features": extractor.name, "distance": extractor.distance}
    figures |= on_main(lambda: _distances(real, Gaussian.of(real), fake))
    if asked is not None and classes:
        learnt = subject.classifier_of(
            name, lambda: Labelled(given, asked[:count]), {"archive": content, "n": count}, str(path)
        )
        test = subject.data.test
        figures["label_accuracy"] = _accuracy(subject, subject.classifier("all"), given, asked[:count])
        figures["cas"] = _accuracy(subject, learnt, test.images, test.labels)
    return figures


def copies(subject: Subject) -> Figures:
    """Whether samples are nearer to training images than new real images are, in pixels and in features."""
    batch, count, train = subject.config.inference_batch, subject.n, subject.data.train
    drawn_and_new = _joined(subject.row("samples"), subject.row("test"), count)  # training images are read once for both
    device = subject.networks.device
    pixels = (Points(_pixels(drawn_and_new, device), 2 * count), Points(_pixels(train.images, device), len(train)))
    spaces = {"pixels": pixels}
    if subject.label_names or subject.config.features != CLASSIFIER:
        network = subject.extractor
        seen = Points(lambda indices: features_at(network, train.images, indices, batch), len(train))
        spaces["features"] = Points.of(features_of(network, drawn_and_new, 2 * count, batch)), seen
    figures: Figures = {"images": count, "page": PAGE}
    for space, (asked, seen) in spaces.items():
        distances, which = nearest(asked, seen, device)
        figures[space] = {
            "share": copy_share(distances[:count], distances[count:]),
            "distances": distances[:count][:PAGE].tolist(),
            "nearest": which[:count][:PAGE].tolist(),
        }
        page = torch.arange(min(PAGE, count))
        picture = pairs(subject.row("samples")(page), train.images(which[page]))
        on_main(save_png, subject.folder / f"nearest_{space}.png", picture)
    return figures


def _joined(first: Images, second: Images, count: int) -> Images:
    """`count` images, and then others, by ascending indices."""

    def read(indices: Tensor) -> Tensor:
        parts = (first, indices[indices < count]), (second, indices[indices >= count] - count)
        return torch.cat([images(at) for images, at in parts if len(at)])

    return read


def _pixels(images: Images, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Images by their indices [n] as rows [n, C * H * W] of numbers in [0, 1], on the device."""
    return lambda indices: to_float(images(indices), device).flatten(1)


PARTS = {
    "reconstruction": reconstruction,
    "likelihood": likelihood,
    "ladder": ladder,
    "labels": labels,
    "copies": copies,
}
"""By the names of `Evaluation.only`."""
