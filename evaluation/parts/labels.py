"""Whether samples carry their label, and what a classifier learns from them (CAS, arXiv 1905.10887)."""

import torch
from torch import Tensor

from vqprior.runtime.chunks import chunks
from vqprior.runtime.pictures import to_float
from vqprior.runtime.processes import share_of_process, sum_numbers

from ..classifier import Classifier
from ..learners import LEARNT, classifier
from ..part import Part, features, row_size, samples
from ..rows import Images
from ..subject import Subject
from ..tables import Figures, Row, Table, list_table

SCORED = ("train", "train_reconstructions", "samples")  # what the classifiers of CAS learn from
AGREEMENT = (
    Row("real test images", "{classifier_accuracy:.2%}"),
    Row("reconstructions", "{label_accuracy_reconstructions:.2%}"),
    Row("samples", "{label_accuracy:.2%}"),
)
CAS = tuple(Row(f"learnt from {LEARNT[name]}", f"{{cas[{name}]:.2%}}") for name in SCORED)


def labels(subject: Subject) -> Figures:
    """How often classifiers are right about samples, and those that learnt from samples about real images."""
    of_real, test = classifier(subject, "all"), subject.data.test
    _, chosen = subject.real(test)
    samples, reconstructions = subject.row("samples"), subject.row("reconstructions")
    score = lambda name: accuracy(subject, classifier(subject, name), test.images, test.labels)
    return {
        "images": subject.n,
        "classifier_accuracy": accuracy(subject, of_real, test.images, test.labels),
        "label_accuracy": accuracy(subject, of_real, samples, subject.sample_labels()),
        "label_accuracy_reconstructions": accuracy(subject, of_real, reconstructions, test.labels[chosen]),
        "cas": {name: score(name) for name in SCORED},
        "test_images": len(test),
    }


def accuracy(subject: Subject, model: Classifier, images: Images, truth: Tensor) -> float:
    """Share of the images with labels [N] to which the classifier gives their label."""
    hits, batch = 0, subject.config.inference_batch
    for chunk in chunks(len(truth), batch, share_of_process(), name="labels"):
        with torch.no_grad():
            logits = model(to_float(images(chunk.padded), subject.networks.device, channels_last=True))
        hits += (chunk.own(logits.argmax(1).cpu()) == truth[chunk.items]).sum().item()
    return sum_numbers([hits])[0] / len(truth)


def tables(figures: Figures) -> list[Table]:
    """Two lists."""
    score = "classification accuracy score: {images:,} images to learn from, {test_images:,} test images"
    agreement = "a classifier of real images gives the label asked for"
    return [list_table(agreement, AGREEMENT, figures), list_table(score, CAS, figures)]


PART = Part(
    "labels",
    "Labels",
    labels,
    tables,
    depends_on=(row_size, samples, features),
    needs_labels=True,
    of_all_classes=True,
    tiles=(Row("CAS; {label_accuracy:.2%} carry their label", "{cas[samples]:.2%}"),),
)
