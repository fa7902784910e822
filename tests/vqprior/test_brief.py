"""The short help fits a screen, says what is true, and leads to the long one."""

import dataclasses
import re
import shlex

import pytest

from vqprior import configs
from vqprior.brief import SCREENS, screen
from vqprior.configs import Config
from vqprior.configs.commands import Check, EncodePictures, Evaluation, Report, TrainPrior

LINES, COLUMNS = 45, 80
SCHEMAS = {"evaluate": Evaluation, "report": Report, "check": Check, "train-prior": TrainPrior}


@pytest.mark.parametrize("name", SCREENS)
def test_help_fits_a_screen(command, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    code, printed = command(name, "--help")
    lines = printed.splitlines()
    assert code == 0 and len(lines) <= LINES and max(map(len, lines)) <= COLUMNS, printed
    assert "--help-all" in printed and "examples:" in printed
    assert command(name, "-h") == (0, printed)


@pytest.mark.parametrize("name", SCREENS)
def test_every_field_is_there_with_its_value_and_is_a_flag(name):
    schema = SCHEMAS.get(name, Config)
    default = schema()
    text = screen(name, None, default)
    for path in (path for group in SCREENS[name].groups.values() for path in group):
        value = default
        for part in path.split("."):
            value = getattr(value, part)
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        typed = [f"--{path}", *map(str, values)]
        assert re.search(rf"^  {re.escape(' '.join(typed))}(\s|$)", text, re.MULTILINE)
        if values:
            assert configs.parse_options(schema, typed) == default


@pytest.mark.parametrize(("name", "example"), [(n, e) for n, s in SCREENS.items() for e in s.examples])
def test_examples_are_commands(name, example):
    program, command_name, target, *flags = shlex.split(example)
    assert (program, command_name) == ("vqprior", name) and not target.startswith("-")
    schema = EncodePictures if "--pictures" in flags else SCHEMAS.get(name, Config)
    configs.parse_options(schema, flags)
    if not target.startswith("runs/"):
        configs.find_preset(target)


def test_values_are_those_of_the_preset_or_the_run(command, finished_run):
    printed = command("run", "mnist5k", "--help")[1]
    assert "--stage1.K 128 " in printed and "--data.size 28 28 " in printed
    assert "usage: vqprior run mnist5k" in printed
    assert "--stage1.K 16 " in command("run", finished_run, "--help")[1]


def test_what_a_word_may_be_is_shown(command):
    words = " ".join(command("run", "--help")[1].split())
    assert "gated_pixelcnn | pixelsnail | transformer" in words and "ema | gradient | simvq" in words


@pytest.mark.parametrize("name", ["run", "sample", "export", "ls"])
def test_help_all_explains_every_field_for_every_command(command, name):
    code, printed = command(name, "--help-all")
    assert code == 0 and "show this help message" in printed
    if name == "run":
        sections = {field.name: field.type for field in dataclasses.fields(Config)}
        of_sections = [f"--{s}.{f.name}" for s in sections for f in _fields(getattr(Config(), s))]
        assert all(flag in printed for flag in of_sections)


def _fields(section: object) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(section) if dataclasses.is_dataclass(section) else ()


def test_bare_encode_of_pictures_explains_its_own_flags(command):
    assert "--on_error" in command("encode", "mnist5k", "--pictures", "x", "--help")[1]
