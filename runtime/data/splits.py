"""The words that name a split, in folder names, file names and the column `split` of a table."""

import re
from collections import defaultdict
from collections.abc import Iterable

from vqprior.configs.errors import UserError

WORDS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}


def split_of(word: str) -> str | None:
    """train, validation or test, where a word means one of them, in any case; else None."""
    return _SPLIT_OF.get(word.strip().lower())


def split_in_path(path: str) -> str | None:
    """The split that a path names: by a word in its file name, else in the nearest folder that has one.

    `my_train_part1.parquet`, `data/test/0.parquet` and `train-00000-of-00001.parquet` name one.

    Raises:
        UserError: one name has words of two splits.
    """
    for part in reversed(path.split("/")):
        named = {split for word in re.findall("[a-z]+", part.lower()) if (split := split_of(word))}
        if len(named) > 1:
            raise UserError(
                f"{path} names {' and '.join(sorted(named))}: it can be of one split alone. "
                "Rename it, or say which is which: --data.train_root FILES --data.test_root FILES"
            )
        if named:
            return named.pop()
    return None


def differ_by_splits(names: Iterable[str]) -> bool:
    """Whether some names differ by words of splits alone, as `train2017` and `val2017` do."""
    splits_of_rest: defaultdict[str, set[str]] = defaultdict(set)
    for name in map(str.lower, names):
        for word in re.findall("[a-z]+", name):
            if split := split_of(word):
                splits_of_rest[name.replace(word, "", 1)].add(split)
    return any(len(splits) > 1 for splits in splits_of_rest.values())


def all_words() -> str:
    """All words that are understood, for messages."""
    return "; ".join(f"{', '.join(words)} for {split}" for split, words in WORDS.items())


def in_order(splits: Iterable[str]) -> list[str]:
    """Splits in the order train, validation, test."""
    return sorted(splits, key=list(WORDS).index)
