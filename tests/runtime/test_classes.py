"""Words that name splits, and values that name classes."""

import numpy as np
import pytest

from vqprior.configs import UserError
from vqprior.runtime.data.labels import classes_of
from vqprior.runtime.data.splits import split_in_path, split_of


def test_split_words():
    assert [split_of(word) for word in ("TRAINING", "Valid", "testing", "trainset")] == [
        *("train", "validation", "test"),
        None,
    ]
    paths = (
        "train-00000.parquet",
        "my_train_part1.parquet",
        "data/test/0.parquet",
        "validation/a.parquet",
        "x/0.parquet",
    )
    assert [split_in_path(path) for path in paths] == ["train", "train", "test", "validation", None]
    with pytest.raises(UserError, match="test and train"):
        split_in_path("train_test.parquet")


def classes(train: list, given: list[str] | None = None, **held_out: list) -> tuple:
    found = classes_of({"train": train} | held_out, "the column 'label'", given and {"train": given})
    return {split: numbers.tolist() for split, numbers in found.labels.items()}, found.names, found.note


@pytest.mark.parametrize(
    ("values", "labels", "names"),
    [
        ([1, 10, 2, 1], [0, 2, 1, 0], ("1", "2", "10")),
        ([5.0, 3.0, 5.0], [1, 0, 1], ("3", "5")),
        ([True, False], [1, 0], ("False", "True")),
        (["b", "a", "b"], [1, 0, 1], ("a", "b")),
        ([*np.array([0, 1], dtype=np.uint8)], [0, 1], ("0", "1")),
        ([-1, 1], [0, 1], ("-1", "1")),
        ([7, 7], [0, 0], ()),
    ],
)
def test_values_become_classes(values, labels, names):
    found, label_names, _ = classes(values)
    assert found == {"train": labels} and label_names == names


def test_notes_on_labels():
    assert "numbers from 1 to 3: 3 classes" in classes([1, 2, 3])[2]
    assert "numbers from 1 to 9, with gaps" in classes([1, 9, 3])[2]
    assert "one value" in classes(["a", "a"])[2]
    found, names, note = classes([0, 2, 0], ["cat", "cow", "dog"], test=[2])
    assert found == {"train": [0, 1, 0], "test": [1]} and names == ("cat", "dog") and "dropped: cow" in note
    found, _, note = classes([0, 1], test=[-1, -1])
    assert found == {"train": [0, 1]} and "test are hidden" in note
    found, _, note = classes([0, 1], ["a", "b"], test=[-1, -1], validation=[1])
    assert found == {"train": [0, 1], "validation": [1]}


@pytest.mark.parametrize(
    ("train", "held_out", "words"),
    [
        ([1, None, 2], [], "no label in 1 of 3 rows of train"),
        ([1.0, float("nan")], [], "no label in 1 of 2 rows"),
        ([[0, 1], [1, 0]], [], "list"),
        ([*np.eye(2)], [], "list"),
        ([0.5, 0.25], [], "fractions"),
        ([f"a photo of {i}" for i in range(40)], [], "captions"),
        ([*range(100)], [], "captions"),
        ([0, 1], [2], "test that train lacks: 2"),
        ([0, 1], [0, -1], "test that train lacks: -1"),
    ],
)
def test_values_that_are_no_classes(train, held_out, words):
    with pytest.raises(UserError, match=words) as caught:
        classes(train, **({"test": held_out} if held_out else {}))
    assert "--data.labels False" in str(caught.value)
