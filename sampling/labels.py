"""A class as it is given: an integer is its number, a string is its name, whatever the names look like.

A command line has nothing but text. There a name wins, and `#3` is the class with number 3; where no name is
made of digits a plain 3 is that too.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.configs.schema import is_whole

from .arguments import unwrapped

Label = int | str
Labels = Sequence[Label] | np.ndarray | Tensor | Label
SHOWN = 20  # classes that a message lists


def listed(label_names: Sequence[str]) -> str:
    """The classes with their numbers, as text; names are quoted where one is made of digits or blank."""
    plain = not any(name.isdecimal() or not name.strip() for name in label_names)
    one = (lambda number, name: f"{number} {name}") if plain else (lambda number, name: f"#{number} {name!r}")
    shown = [one(number, name) for number, name in enumerate(label_names[:SHOWN])]
    more = len(label_names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def label_number(label: Label, label_names: Sequence[str]) -> int:
    """The number of a class, given by an integer, which is its number, or by a string, which is its name.

    Raises:
        UserError: there is no such class, there are no classes, or it is neither an integer nor a string.
    """
    label = unwrapped(label)
    _refuse_without_classes(label, label_names)
    if isinstance(label, str):
        return _numbered(label, label_names)
    if not is_whole(label):
        raise UserError(
            f"{label!r} is not a class but {type(label).__name__}; an integer is the number of a class, a "
            f"string its name: the classes are {listed(label_names)}"
        )
    if not 0 <= label < len(label_names):
        raise UserError(f"there is no class {label}; the classes are {listed(label_names)}")
    return int(label)


def label_numbers(labels: Labels, count: int, label_names: Sequence[str]) -> Tensor:
    """The numbers [N] int64 of the classes of `count` images, given one for each or one for all.

    Raises:
        UserError: there is no such class, or they are of another count.
    """
    each = label_list(labels)
    if each is None:
        each = [labels] * count
    if len(each) != count:
        found = f"there are {count} images, but {len(each)} labels"
        raise UserError(f"{found}; give one label for each image, or one for all")
    return torch.tensor([label_number(label, label_names) for label in each], dtype=torch.int64)


def label_list(labels: Labels) -> list[Any] | None:
    """The labels where they are given one for each image, None where one is given for all."""
    if hasattr(labels, "tolist"):  # of numpy, torch and pandas
        labels = labels.tolist()
    several = isinstance(labels, Sequence) and not isinstance(labels, (str, bytes, bytearray))
    return list(labels) if several else None


def label_of_text(text: str, label_names: Sequence[str]) -> int:
    """The number of the class that the text of a command line means: a name if a class has it, else a number.

    Raises:
        UserError: there is no such class, or there are no classes.
    """
    _refuse_without_classes(text, label_names)
    if text in label_names:
        return _numbered(text, label_names)
    digits = text.removeprefix("#")
    if not (digits.isascii() and digits.isdecimal()):
        hint = ' For no class, leave it out or type --label "".' if text == "None" else ""
        raise UserError(f"there is no class {text!r}; the classes are {listed(label_names)}.{hint}")
    if text == digits and any(name.isdecimal() for name in label_names):
        raise UserError(
            f"there is no class named {text!r}, and where names are made of digits a number is written "
            f"'#{text}'; the classes are {listed(label_names)}"
        )
    return label_number(int(digits), label_names)


def _refuse_without_classes(label: Any, label_names: Sequence[str]) -> None:
    if not label_names:
        raise UserError(f"label {label!r} was given, but the prior is unconditional: its data had no classes")


def _numbered(name: str, label_names: Sequence[str]) -> int:
    """The number of the one class of this name."""
    numbers = [number for number, other in enumerate(label_names) if other == name]
    if not numbers:
        raise UserError(
            f"there is no class {name!r}; the classes are {listed(label_names)}. A string is a name, and an "
            "int the number of a class"
        )
    if len(numbers) > 1:
        raise UserError(
            f"{len(numbers)} classes are called {name!r}, those with the numbers "
            f"{', '.join(map(str, numbers))}: give the number, on a command line as '#{numbers[0]}'"
        )
    return numbers[0]
