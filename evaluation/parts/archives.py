"""Samples from elsewhere, each archive a part of its own: one row of all that ladder and labels say."""

from functools import partial
from pathlib import Path
from typing import Any

from vqprior.runtime.kept import digest
from vqprior.runtime.processes import on_main
from vqprior.runtime.randomness import some_of
from vqprior.stage1_vqvae.classification import Labelled

from ..archive_file import read_archive, read_labels
from ..features import features_of
from ..learners import classifier, classifier_of
from ..measured import Measured, read_part
from ..part import Part, Settings, content_of, features, row_size
from ..rows import Images
from ..subject import Subject
from ..tables import Column, Figures, Table, column_table
from .labels import accuracy
from .ladder import COLUMNS, NOTE, Features, compare, features_of_row

HEADING = "Other samples, by the same protocol"
PREFIX = "archive-"  # and the digest of the file and its name: the part's name
EXPECTED = "expected one as `vqprior sample` writes it, samples.npz"
OF_FILE = (
    Column("images", "{images:,}"),
    *COLUMNS,
    Column("right label", "{label_accuracy:#.4g}"),
    Column("CAS", "{cas:#.4g}"),
    Column("features", "{features}"),
)


def archive_part(path: Path) -> Part:
    """The part that measures an archive.

    Raises:
        UserError: there is no such file; later, with its settings, that it does not fit the data.
    """
    content = on_main(content_of, "--archives", path, EXPECTED)
    of_file = {"file": str(path), "archive": content}
    name = f"{PREFIX}{digest(of_file)}"

    def fitting(subject: Subject) -> Settings:
        data = subject.config.data
        read_labels(path, (data.channels, *data.size), subject.label_names)  # now, before parts are measured
        return of_file

    return Part(
        name,
        HEADING,
        partial(archive, path, name, content),
        lambda figures: tables({str(path): figures}),
        depends_on=(row_size, features, fitting),
        needs_features=True,
        needs_images=2,
    )


def archive(path: Path, name: str, content: str, subject: Subject) -> Figures:
    """The figures of an archive.

    Args:
        name: of the classifier that learns from its images.
        content: digest of the file.

    Raises:
        UserError: it does not hold images like those of the data, or not their labels.
    """
    data, batch = subject.config.data, subject.config.inference_batch
    images, own_labels = read_archive(path, (data.channels, *data.size), subject.label_names)
    count = min(subject.n, len(images))
    chosen = some_of(len(images), count)
    own_images: Images = lambda indices: images[chosen[indices]]

    # Beside the ladder's rows
    extractor = subject.extractor
    real = features_of_row(subject, "test")
    fake = Features(features_of(extractor, own_images, count, batch))
    figures: Figures = {"images": count, "features": extractor.name, "distance": extractor.distance}
    figures |= on_main(compare, real, fake)
    if own_labels is None:
        return figures

    # And beside the figures of the labels
    own_labels, test = own_labels[chosen], subject.data.test
    settings = {"archive": content, "n": count, "images": "by chance"}
    learnt = classifier_of(subject, name, lambda: Labelled(own_images, own_labels), settings, str(path))
    figures["label_accuracy"] = accuracy(subject, classifier(subject, "all"), own_images, own_labels)
    figures["cas"] = accuracy(subject, learnt, test.images, test.labels)
    return figures


def measured_archives(folder: Path) -> dict[str, Measured]:
    """The archives that were measured, by the names of their parts."""
    names = [path.stem for path in sorted(folder.glob(f"{PREFIX}*.json"))]
    read = {name: measured for name in names if (measured := read_part(folder, name))}
    return {name: measured for name, measured in read.items() if "file" in measured.settings}


def forget_others(folder: Path, path: Path, name: str) -> None:
    """Delete what was measured of an archive that stood in this file before; the part of this name stays."""
    for other, part in measured_archives(folder).items():
        if other != name and part.settings.get("file") == str(path):
            for classifier in folder.glob(f"classifier-{other}-*.safetensors"):
                classifier.unlink()
            (folder / f"{other}.json").unlink()


def tables(archives: dict[str, Any]) -> list[Table]:
    """One table, a row an archive, by the name of its file."""
    title = "other samples, against real test images"
    return [column_table(title, OF_FILE, archives, {"distance": "Frechet"}, note=NOTE)]
