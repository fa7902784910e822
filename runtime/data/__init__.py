"""Data sets: from the name of a source to the three splits, decoded to uint8.

train          what the networks learn from
validation     given, or cut from train by a hash of each picture's name; chooses checkpoints and settings
test           only for figures that are reported
"""

from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data

from .begin import See, meet_all, survey, with_range, without_unreadable
from .folder import refuse_among_pictures
from .prepared import Prepared
from .record import DAMAGED, SKIPPED, Record, note, summary
from .resume import as_met_before, differing, new_pictures, settle_differences
from .source import SPLITS, Source, printable
from .split import Split

MODULES = {"mnist5k": "mnist5k", "folder": "folder", "parquet": "parquet"}  # all others are torchvision's
SAME = 0.995  # share of the sub-pixels that are black, or white, from which on a picture is called blank


@dataclass(frozen=True)
class DataSet:
    """The three splits and what the classes are called."""

    train: Split
    validation: Split
    test: Split
    label_names: tuple[str, ...]  # empty without classes
    fingerprint: str  # of names, labels and contents
    data: Data  # the settings, with a range in place of `auto` where there are pictures of more than 8 bits
    record: Record
    source: Source = field(repr=False)
    new: int = 0  # pictures that came after the run began, and are no part of it

    def split(self, name: str) -> Split:
        """A split by its name."""
        return getattr(self, name)

    def summary(self) -> str:
        """What was seen, in one short paragraph, which any file can hold."""
        lines = printable(summary(self.record, roots_of(self.data)))
        new = f"\n      {self.new:,} came later and are no part of this run; a new --out takes them"
        return lines + (new if self.new else "")


def roots_of(data: Data) -> str:
    """Where the pictures are, as the settings say."""
    given = [root for root in (data.train_root, data.validation_root, data.test_root) if root]
    return data.table or ", ".join(given) or (data.source if data.source == "mnist5k" else data.root)


def open_source(data: Data) -> Source:
    """The pictures of the source that the settings name, in the splits that it has.

    Raises:
        UserError: it is not there, or its layout or labels are not understood.
    """
    if not roots_of(data):  # torchvision's sets would be downloaded into the current folder
        raise UserError("data.root is '', which is no place; give the folder of the data: --data.root FOLDER")
    source: Source = import_module(f"{__name__}.{MODULES.get(data.source, 'torchvision_sets')}").load(data)
    if data.labels:
        return source
    bare = {name: p and replace(p, labels=None) for name in SPLITS for p in [getattr(source, name)]}
    return replace(source, **bare, label_names=())


def load(
    data: Data,
    *,
    run: Path | None = None,
    begun: bool = True,
    expected: str | None = None,
    quiet: bool = True,
    see: See | None = None,
) -> DataSet:
    """The data set that the configuration names; a run that has begun keeps the pictures that it began with.

    Args:
        run: the run directory, in which a record of the pictures is kept.
        begun: go by that record, where there is one; else nothing was learnt yet, and it is made anew.
        expected: the fingerprint of the data that its checkpoints learnt from.
        see: gets each picture that is tried before a new run begins (data.on_error `skip`) and not held.

    Raises:
        UserError: the data are not there, cannot be read, are too few to split, or are not those of the run.
    """
    if data.cache:  # its mark would have a class left out from then on
        refuse_among_pictures(Path(data.cache), data, "--data.cache")
    source, settings = open_source(data), data
    earlier = Record.read(run) if run and begun else None
    if earlier is None and run:
        for file in (SKIPPED, DAMAGED):
            (run / file).unlink(missing_ok=True)
    record = earlier or with_range(survey(source, settings, quiet=quiet), source, settings, quiet=quiet)
    if settings.range == "auto" and record.range is not None:
        settings = replace(settings, range=tuple(record.range))
    splits = {name: _opened(name, record, source, settings, run, quiet=quiet) for name in SPLITS}
    if earlier:
        for split in splits.values():
            split.absent = as_met_before(split, run)
        settle_differences(splits, run)
    held_bytes = (
        sum(map(len, splits.values()))
        * settings.channels
        * np.prod([s + settings.margin for s in settings.size])
    )
    meeting = earlier is None and settings.on_error == "skip"
    if held_bytes <= settings.memory_gb * 2**30:
        for split in splits.values():
            split.hold(quiet, meeting=meeting)
    elif meeting:
        meet_all(splits, quiet=quiet, see=see)
    if earlier is None:
        record, splits = without_unreadable(record, splits)
        if run and run.is_dir():
            _list_left_out(record, run)
    fingerprint = record.fingerprint()
    is_new = earlier is None and expected in (None, fingerprint)
    if is_new and run is not None and run.is_dir():
        record.write(run)
    return DataSet(
        **splits,
        label_names=tuple(record.label_names),
        fingerprint=fingerprint,
        data=settings,
        record=record,
        source=source,
        new=new_pictures(record, source) if earlier else 0,
    )


def _list_left_out(record: Record, run: Path) -> None:
    """List what a new run leaves out, in place of what its first look may have listed under other names."""
    (run / SKIPPED).unlink(missing_ok=True)
    for split, reasons in record.unreadable.items():
        for key, reason in reasons.items():
            note(run / SKIPPED, split, key, reason)


def _opened(
    name: str,
    record: Record,
    source: Source,
    data: Data,
    run: Path | None,
    *,
    quiet: bool,
) -> Split:
    """A split of a record, of which the pictures are where the source has them now."""
    listed = record.splits[name]
    pictures = getattr(source, listed.origin)
    if pictures is None:
        raise UserError(
            f"the run's {name} split was a folder or file of its own, and {roots_of(data)} has none now"
        )
    indices, absent = differing(
        listed, record.label_names, pictures, source.label_names, workers=data.workers, quiet=quiet
    )
    numbers = None if listed.labels is None else np.array(listed.labels, dtype=np.int64)
    prepared = None
    if data.cache:
        try:
            prepared = Prepared.of(Path(data.cache), name, data, [look.digest for look in listed.looks])
        except OSError as error:
            raise UserError(
                f"data.cache {data.cache} cannot be written ({error.strerror}); give another"
            ) from error
    return Split(name, data, pictures, indices, listed.keys, numbers, absent, run, prepared)


def blank(pixels: np.ndarray) -> bool:
    """Whether pixels [C, H, W] uint8 are all about one value, or nearly all black, or nearly all white."""
    extreme = max((pixels == 0).mean(), (pixels == 255).mean())
    return bool(int(pixels.max()) - int(pixels.min()) <= 2 or extreme >= SAME)


def refuse_blank(split: Split) -> None:
    """Refuse a set of which most pictures show nothing, by up to 64 of them, spread evenly.

    Raises:
        UserError: most are of one colour, or all black or white.
    """
    shown = split.canvas(torch.linspace(0, len(split) - 1, min(64, len(split)), dtype=torch.float64).long())
    count = sum(blank(pixels) for pixels in shown.numpy())
    if count > len(shown) / 2:
        raise UserError(
            f"{count} of {len(shown)} training pictures are of one colour, or all black or white: nothing "
            "can be learnt "
            "from them. If they hold more than 8 bits, say which values are black and white: --data.range "
            "LOW HIGH; "
            "`vqprior check` shows them"
        )
