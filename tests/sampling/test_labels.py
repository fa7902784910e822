"""A class by its number or its name, whatever the names look like."""

import enum
import json
import shutil

import numpy as np
import pytest
import torch

from tests.conftest import colour
from tests.sampling.tiny import tiny_generator
from vqprior import Generator
from vqprior.configs import UserError
from vqprior.evaluation.archive_file import read_archive
from vqprior.sampling.labels import label_number, label_numbers, label_of_text

AWKWARD = [
    ("3", "1", "2"),
    ("None", "no", "true"),
    ("#0", "0", "#1"),
    ("", " ", "a b"),
    ("猫", "chien é", "-1"),
    ("--label", "1.0", "nan"),
]
each_awkward = pytest.mark.parametrize("names", AWKWARD, ids=repr)
BEYOND = (3, -1, 10**20, np.int64(7), torch.tensor(5))
NO_CLASSES = (True, np.False_, torch.tensor(True), 1.0, np.float32(2), float("nan"), None, b"1", [0], 1j)


@each_awkward
def test_an_integer_is_a_number_and_a_string_a_name(names):
    for number, name in enumerate(names):
        integers = (number, np.int64(number), np.uint8(number), torch.tensor(number), np.array(number))
        assert [label_number(integer, names) for integer in integers] == [number] * 5
        assert label_number(name, names) == label_number(np.str_(name), names) == number


@each_awkward
def test_lists_arrays_and_tensors_mean_what_their_elements_mean(names):
    for given in ([0, 2, 1], np.array([0, 2, 1], np.int8), torch.tensor([0, 2, 1]), range(3)):
        expected = [0, 1, 2] if isinstance(given, range) else [0, 2, 1]
        assert label_numbers(given, 3, names).tolist() == expected
    for given in (list(names), tuple(names), np.array(names), np.array(names, dtype=object)):
        assert label_numbers(given, 3, names).tolist() == [0, 1, 2]
    assert label_numbers([names[2], 1, torch.tensor(0)], 3, names).tolist() == [2, 1, 0]
    assert label_numbers(names[1], 2, names).tolist() == label_numbers(1, 2, names).tolist() == [1, 1]


@each_awkward
@pytest.mark.parametrize("given", [*BEYOND, *NO_CLASSES], ids=repr)
def test_nothing_else_is_a_class(names, given):
    with pytest.raises(UserError, match=r"(no|not a) class"):
        label_number(given, names)
    with pytest.raises(UserError, match=r"(no|not a) class"):
        label_numbers([given, 0], 2, names)


def test_what_comes_in_arrays_is_no_class_either():
    arrays = (np.array([0.0, 1.0]), torch.tensor([True, False]), np.array([[0], [1]]))
    for given in (*arrays, [0, None], ["ant", 1.0]):
        with pytest.raises(UserError, match="is not a class but"):
            label_numbers(given, 2, ("ant", "bee"))
    for given in (b"\0\1", {0: 1, 1: 0}, {0, 1}, None, 0.0):
        with pytest.raises(UserError, match="is not a class but"):
            label_numbers(given, 2, ("ant", "bee"))


def test_members_of_an_enumeration_of_integers_are_numbers():
    assert label_number(enum.IntEnum("Insect", ["ANT"]).ANT, ("wasp", "ant")) == 1


@each_awkward
def test_on_a_command_line_a_name_wins(names):
    for number, name in enumerate(names):
        assert label_of_text(name, names) == number
        if f"#{number}" not in names:
            assert label_of_text(f"#{number}", names) == number


def test_a_plain_number_is_one_where_no_name_is_made_of_digits():
    assert [label_of_text(text, ("ant", "-1", "1.5")) for text in ("0", "1", "2", "02")] == [0, 1, 2, 2]
    with pytest.raises(UserError, match=r"there is no class named '0'.* a number is written '#0'"):
        label_of_text("0", ("3", "1", "2"))
    with pytest.raises(UserError, match="#0 '3', #1 '1', #2 '2'"):
        label_of_text("4", ("3", "1", "2"))
    for text in ("#", "#-1", "# 1", "#1.0", "-1", "+1", "1_0", "٣", "²", "wasp", "Ant", "#3", "3"):
        with pytest.raises(UserError, match=r"there is no class .*0 ant, 1 bee, 2 fly"):
            label_of_text(text, ("ant", "bee", "fly"))
    with pytest.raises(UserError, match='leave it out or type --label ""'):
        label_of_text("None", ("ant", "bee"))


def test_two_classes_of_one_name_have_their_numbers():
    assert label_number(2, ("a", "b", "a")) == label_of_text("#2", ("a", "b", "a")) == 2
    for call in (label_number, label_of_text):
        with pytest.raises(UserError, match=r"2 classes are called 'a'.*0, 2"):
            call("a", ("a", "b", "a"))


def test_without_classes_there_is_none_to_name():
    for call, given in ((label_number, 0), (label_number, "a"), (label_of_text, "#0")):
        with pytest.raises(UserError, match="unconditional"):
            call(given, ())


def named(names: tuple[str, ...]) -> Generator:
    """The tiny generator, with other names for its classes."""
    tiny = tiny_generator()
    return Generator(tiny.tokenizer, tiny.networks.priors[0], names)


def test_all_calls_agree_on_classes_called_by_digits_in_another_order():
    plain, other = tiny_generator(), named(("3", "1", "2"))
    image, mask = plain.sample(1)[0], np.arange(16)[:, None].repeat(20, 1) > 7
    calls = {
        "sample": lambda generator, label: generator.sample(4, labels=label),
        "complete": lambda generator, label: generator.complete(image, mask, n=2, labels=label).codes,
        "log2_prob": lambda generator, label: generator.log2_prob(image[None], label),
    }
    for name, call in calls.items():
        for number, (letter, digit) in enumerate(zip("abc", "312", strict=True)):
            expected = call(plain, letter)
            for given in (number, np.int64(number), digit):
                assert np.array_equal(call(other, given), expected), (name, given)
    assert np.array_equal(plain.classify(image[None]), other.classify(image[None]))


@pytest.fixture
def renamed_run(finished_run, tmp_path):
    """Makes a copy of a finished run whose two classes have other names."""

    def make(names: tuple[str, str]):
        run = tmp_path / "run"
        shutil.copytree(finished_run, run)
        for manifest in (run / "stage2").glob("*/manifest.json"):
            tree = json.loads(manifest.read_text())
            tree["meta"]["codes"]["label_names"] = list(names)
            manifest.write_text(json.dumps(tree))
        return run

    return make


@pytest.mark.parametrize(
    ("names", "text", "number"),
    [
        (("1", "0"), "1", 0),
        (("1", "0"), "#1", 1),
        (("no", "None"), "None", 1),
        (("no", "None"), "no", 0),
        (("--seed", "-1"), "-1", 1),
        (("猫 x", "b"), "猫 x", 0),
        (("b", "a"), "1", 1),
    ],
)
def test_the_commands_take_awkward_names(renamed_run, command, tmp_path, names, text, number):
    run, out = renamed_run(names), tmp_path / "out"
    code, printed = command("sample", run, "--label", text, "--images", 3, "--out", out)
    assert code == 0, printed
    with np.load(out / "samples.npz") as archive:
        assert archive["labels"].tolist() == [number] * 3
        assert archive["label_names"].tolist() == list(names) and archive["label_names"].dtype.kind == "U"
        assert np.array_equal(archive["images"], Generator.from_run(run).sample(3, labels=number))
    photo = run.parent / "photo.png"
    colour(1).save(photo)
    hidden = ["--image", photo, "--hide", "lower half", "--images", 2, "--out", tmp_path / "completed"]
    code, printed = command("complete", run, *hidden, "--label", text)
    assert code == 0, printed
    assert json.loads((tmp_path / "completed" / "completions.json").read_text())["label"] == text


def test_names_that_begin_with_a_dash_are_given_with_a_sign(renamed_run, command, tmp_path):
    run = renamed_run(("--seed", "-x"))
    for name, number in (("--seed", 0), ("-x", 1)):
        out = tmp_path / str(number)
        assert command("sample", run, f"--label={name}", "--images", 2, "--out", out)[0] == 0
        assert np.load(out / "samples.npz")["labels"].tolist() == [number] * 2


def test_samples_of_old_runs_are_still_done(finished_run, command, tmp_path):
    """Their samples.json has `label` null; their configuration too."""
    shutil.copytree(finished_run, tmp_path / "run")
    record = tmp_path / "run" / "samples" / "samples.json"
    assert json.loads(record.read_text())["label"] is None
    config = tmp_path / "run" / "config.yaml"
    text = config.read_text()
    assert "  label: ''\n" in text
    config.write_text(text.replace("  label: ''\n", "  label: null\n"))
    code, printed = command("sample", tmp_path / "run")
    assert code == 0 and "sample: done" in printed


def write(path, labels, names=None) -> str:
    arrays = {"images": np.zeros((3, 4, 4, 1), np.uint8), "labels": np.array(labels)}
    np.savez(path, **arrays, **({} if names is None else {"label_names": np.array(names, dtype=np.str_)}))
    return path


def test_an_archive_is_read_with_names_and_without(tmp_path):
    def read(*arguments) -> list[int]:
        return read_archive(write(tmp_path / "a.npz", *arguments), (1, 4, 4), ("1", "0", "no"))[1].tolist()

    assert read([0, 1, 2]) == read([0, 1, 2], []) == [0, 1, 2]
    assert read([0, 1, 2], ["1", "0", "no"]) == [0, 1, 2]
    assert read([0, 1, 1], ["no", "1", "ant"]) == [2, 0, 0]  # ant does not occur
    for labels, names, words in (
        ([0, 1, 2], ["no", "1", "ant"], "classes ant, which this run does not have"),
        ([0, 1, 5], ["no", "1"], "from 0 to 5, and 2 label_names"),
        ([0, -1, 1], ["no", "1"], "from -1 to 1"),
        ([0, 1, 1], [["no", "1"]], "a name a class"),
    ):
        with pytest.raises(UserError, match=words):
            read(labels, names)
