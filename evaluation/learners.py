"""The classifiers that figures of a subject take, and what each of them learns from."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from vqprior.runtime.checkpoint import write_tensors
from vqprior.runtime.files import write_file
from vqprior.runtime.kept import Kept
from vqprior.runtime.processes import main_first, on_main, say
from vqprior.stage1_vqvae.classification import Labelled, train_classifier

from .classifier import RECIPE, SEED, Classifier
from .features import CLASSIFIER, Extractor, of_classifier, of_torch_fidelity

if TYPE_CHECKING:
    from .subject import Subject

LEARNT = {
    "all": "all real training images",
    "train": "as many real training images",
    "train_reconstructions": "their reconstructions",
    "samples": "samples",
}
"""What classifiers learn from."""


def learning(subject: "Subject", name: str) -> Labelled:
    """Images to train a classifier on: `all` real training images, n of them (`train`), or another row."""
    train = subject.data.train
    if name == "all":
        return Labelled(train.images, train.labels)
    if name in ("train", "train_reconstructions"):
        return Labelled(subject.row(name), train.labels[subject.real(train)[1]])
    return Labelled(subject.row(name), subject.sample_labels())


def classifier(subject: "Subject", name: str) -> Classifier:
    """The classifier that learnt from these images: see `learning`."""
    images = partial(learning, subject, name)
    return classifier_of(subject, name, images, subject.settings_of(name), LEARNT[name])


def classifier_of(
    subject: "Subject",
    name: str,
    images: Callable[[], Labelled],
    settings: dict[str, Any],
    what: str,
) -> Classifier:
    """The classifier that learnt from some images; the main process trains it where it is not there yet.

    Args:
        name: of its file; one of the same name that learnt from others makes room for it.
        images: what it learns from, made on all processes.
        settings: what they depend on, besides the data.
        what: they are, in words.
    """
    data, steps, device = subject.config.data, subject.config.classifier_steps, subject.networks.device
    recipe = {"recipe": RECIPE, "steps": steps, "seed": SEED, "data": subject.data.fingerprint}
    file = Kept(subject.folder, f"classifier-{name}", ".safetensors", recipe | settings)
    build = partial(Classifier, data.channels, data.size, len(subject.label_names))

    def train(learnt: Labelled) -> None:
        file.make_room()
        model = train_classifier(build, learnt, steps=steps, seed=SEED, device=device)
        write_file(file.path, partial(write_tensors, tensors=model.state_dict()))

    # All processes make the images, the main one learns from them
    if not on_main(file.path.is_file):
        learnt = images()
        say(f"evaluate: train a classifier on {what}, {steps} steps")
        on_main(train, learnt)

    # All read what it has learnt
    model = build()
    model.load_state_dict(load_file(file.path))
    return model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def extractor_of(subject: "Subject") -> Extractor:
    """The network that distances are measured in.

    Raises:
        UserError: it is a network that cannot be had.
    """
    name, device = subject.config.features, subject.networks.device
    if name != CLASSIFIER:  # which may be downloaded: once
        return main_first(of_torch_fidelity, name, subject.config.features_weights, device)
    return of_classifier(classifier(subject, "all"), device)
