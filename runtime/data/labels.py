"""From the values of a label column to classes: one mapping for all splits, made from those of train.

The C different values in train become the classes 0 to C - 1 in their order, named by the values as text:

[7, 3, 3]       classes 3, 7            labels [1, 0, 0]
[1.0, 2.0]      classes 1, 2            labels [0, 1]
["b", "a"]      classes a, b            labels [1, 0]
[True, False]   classes False, True     labels [1, 0]
"""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from vqprior.configs.errors import UserError

from .source import counted

OTHERWISE = (
    "Learn without classes: --data.labels False; or name another column: --data.label_column COLUMN; "
    "or list the pictures with their classes: --data.table FILE.csv"
)
FEW = 20  # so many different values are classes, however few the pictures


class Classes(NamedTuple):
    """What the values of a label column mean."""

    labels: dict[str, np.ndarray]  # [N] int64 by split; splits whose labels are hidden are not in it
    names: tuple[str, ...]  # of the classes; empty where there is one value only
    note: str  # what was understood, in words


def classes_of(
    columns: Mapping[str, Sequence[Any]], what: str, given: Mapping[str, Sequence[str]] | None = None
) -> Classes:
    """The classes of all splits.

    Args:
        columns: the raw values by split; `train` is one of them.
        what: the column, in words, for messages: "column 'label' of data.root 'x'".
        given: what the numbers of a split mean, where it says so (ClassLabel of Hugging Face); for a split
            that does not goes what they mean in train, or, where that has plain numbers, in those that agree.

    Raises:
        UserError: missing values, lists, captions or quantities, or a class that only a held-out split has.
    """
    values = {split: [_plain(value, what) for value in column] for split, column in columns.items()}
    hidden = [split for split in values if split != "train" and _hidden(values[split], values["train"])]
    values = {split: column for split, column in values.items() if split not in hidden}
    given = given or {}
    of_train, alike = given.get("train"), {tuple(names) for names in given.values()}
    if of_train is None and len(alike) == 1 and not any(isinstance(value, str) for value in values["train"]):
        (of_train,) = alike
    named_by = [split for split in given if of_train is not None and "train" not in given]
    for split in values:
        if names := given.get(split, of_train):
            values[split] = [_named(value, names, what) for value in values[split]]
    if any(isinstance(value, str) for column in values.values() for value in column):
        values = {split: [v if v is None else str(v) for v in column] for split, column in values.items()}
    _refuse_missing(values, what)
    if of_train is None:
        _refuse_captions(values["train"], what)
        order = sorted(set(values["train"]))
    else:
        there = set(values["train"])  # once, not for each of a thousand names
        order = [name for name in of_train if name in there]
    _refuse_unknown(values, set(order), what)
    notes = _notes(order, of_train, what)
    if named_by:
        notes.append(f"the plain numbers of train are taken to mean what they do in {' and '.join(named_by)}")
    notes += [f"the labels of {split} are hidden (-1): that split is not used" for split in hidden]
    numbers = {value: number for number, value in enumerate(order)}
    labels = {s: np.array([numbers[v] for v in column], dtype=np.int64) for s, column in values.items()}
    return Classes(labels, tuple(map(str, order)) if len(order) > 1 else (), "; ".join(notes))


def _plain(value: Any, what: str) -> int | str | None:
    """One value as a whole number or as text; None where it is missing."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, (list, tuple, set, dict)):
        raise UserError(
            f"{what} holds a list in a row ({str(value)[:60]}), where each picture has one class: one whole "
            f"number or word. {OTHERWISE}"
        )
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if value is None or value == "" or value != value:  # NaN is not equal to itself
        return None
    if isinstance(value, (str, bool)):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        if float(value).is_integer():
            return int(value)
        raise UserError(
            f"{what} holds numbers with fractions ({value:g}), which measure and name no class; expected "
            f"whole numbers or words. {OTHERWISE}"
        )
    return str(value)


def _hidden(held_out: Sequence[Any], train: Sequence[Any]) -> bool:
    """Whether a held-out split has its labels hidden: -1 in all rows, which is no class of train."""
    return set(held_out) == {-1} and -1 not in train


def _named(value: int | str | None, given: Sequence[str], what: str) -> str | None:
    """The given name of a number; None for -1."""
    if value is None or value == -1:
        return None
    if isinstance(value, str) and value in given:
        return value
    if isinstance(value, str) or not 0 <= value < len(given):
        raise UserError(f"{what} holds {value!r}, and has names for 0 to {len(given) - 1}. {OTHERWISE}")
    return given[value]


def _refuse_missing(values: Mapping[str, Sequence[Any]], what: str) -> None:
    counts = {split: column.count(None) for split, column in values.items()}
    if any(counts.values()):
        found = ", ".join(
            f"{n:,} of {len(values[split]):,} rows of {split}" for split, n in counts.items() if n
        )
        raise UserError(f"{what} has no label in {found}; every picture takes one. {OTHERWISE}")


def _refuse_captions(train: Sequence[Any], what: str) -> None:
    distinct = len(set(train))
    if distinct > FEW and distinct > len(train) / 2:
        raise UserError(
            f"{what} has {distinct:,} different values in {len(train):,} rows of train (such as "
            f"{str(train[0])[:60]!r}): these are captions or numbers of pictures, and classes need several "
            f"pictures each. {OTHERWISE}"
        )


def _refuse_unknown(values: Mapping[str, Sequence[Any]], known: set[Any], what: str) -> None:
    for split, column in values.items():
        if unknown := sorted(set(column) - known):
            named = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
            raise UserError(
                f"{what} has {counted(len(unknown), 'class')} in {split} that train lacks: {named}. Add such "
                f"pictures to train or take them out of {split}. {OTHERWISE}"
            )


def _notes(order: Sequence[Any], given: Sequence[str] | None, what: str) -> list[str]:
    if len(order) == 1:
        return [f"{what} has one value in all rows, {str(order[0])!r}: no classes"]
    if given is not None:
        dropped = [name for name in given if name not in order]
        note = f"{counted(len(dropped), 'class')} without pictures in train dropped: {', '.join(dropped[:5])}"
        return [f"classes from {what}"] + ([note + (", ..." if len(dropped) > 5 else "")] if dropped else [])
    if isinstance(order[0], int) and list(order) != list(range(len(order))):
        gaps = "" if order[-1] - order[0] + 1 == len(order) else ", with gaps"
        span = f"numbers from {order[0]} to {order[-1]}{gaps}"
        return [f"{what} holds {span}: {len(order):,} classes, named by these numbers"]
    return [f"classes from {what}"]
