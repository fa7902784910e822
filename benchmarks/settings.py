"""The page of all settings, made from the schema: python -m benchmarks.settings docs/settings.md

What values a number may have is found by trying some: the schema refuses the others (`accepted`).
"""

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vqprior import configs
from vqprior.brief import docstrings
from vqprior.configs import Config, commands
from vqprior.configs.schema import Stage2, Stage2Fine

HEAD = """# Every setting

Made from `configs/schema/` and `configs/commands.py` by `python -m benchmarks.settings docs/settings.md`;
a test holds them equal.

A setting is a flag (`--stage1.K 512`), a key of a preset (`stage1: {K: 512}`) and a name in a run's
`config.yaml`. Defaults are those of the schema: a preset in `configs/` sets others, a flag wins over both. A
star marks what may change when a run goes on. Which ones matter, and when: [tuning.md](tuning.md).
"""

COMMANDS = {
    "train-prior": commands.TrainPrior,
    "encode --pictures": commands.EncodePictures,
    "complete": commands.Complete,
    "score": commands.Score,
    "evaluate": commands.Evaluation,
    "check": commands.Check,
    "report": commands.Report,
    "import-codes": commands.ImportCodes,
    "export": commands.Export,
    "app": commands.App,
}
"""Commands with settings of their own, which no run keeps."""

NEEDED: dict[type, dict[str, Any]] = {
    commands.Complete: {"image": "photo.png", "hide": "lower half"},
    commands.EncodePictures: {"pictures": "photos", "out": "codes"},
    commands.Score: {"pictures": "photos", "out": "found"},
    commands.ImportCodes: {"out": "runs/mine"},
    commands.Export: {"out": "mine"},
}
"""Values without which there is no instance."""

BESIDE: dict[str, Callable[[Any], dict[str, Any]]] = {
    "accumulate": lambda value: {"batch_size": value},
    "save_every": lambda value: {"eval_every": value},
    "eval_every": lambda value: {"save_every": value},
    "draws": lambda _: {"images": 1},
    "copies": lambda _: {"flip": True},
    "steps": lambda _: {"init": "RUN"},
    "level": lambda _: {"stage1": replace(Config().stage1, levels=4)},
}
"""What has to go with a value of some fields."""

SAID = {
    "range": "2 numbers, the first smaller",
    "box": "4 whole numbers, the first two at least 0, the others at least 1",
}
"""What fields take whose parts have limits of their own."""

LITTLE = 1e-9
WHOLE = [*range(-1, 65), 1000, 1001, 65535, 65536, 65537, 10**9]
SHARES = [-LITTLE, 0.0, LITTLE, 0.5 - LITTLE, 0.5, 1 - LITTLE, 1.0, 1 + LITTLE, 1e9]
NAMES = {int: "whole number", float: "number", str: "text", bool: "True, False"}


def page() -> str:
    """The whole page, as Markdown."""
    parts = [HEAD, "## Of a run", table(Config(), "")]
    for field in fields(Config):
        if is_dataclass(section := getattr(Config(), field.name)):
            parts += _section(section, field.name)
    parts.append("## Of single commands, which no run keeps")
    for name, owner in COMMANDS.items():
        instance = owner(**NEEDED.get(owner, {}))
        named = {
            name
            for part in owner.mro()
            if part.__module__ == commands.__name__
            for name in part.__annotations__
        }
        own = [field.name for field in fields(owner) if field.name in named]
        parts += [f"### `{name}`", table(instance, "", own)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _section(section: Any, path: str) -> Iterator[str]:
    """The heading and table of a section, and those of the sections in it."""
    yield f"## `{path}`"
    yield " ".join(type(section).__doc__.split())
    if isinstance(section, Stage2Fine):
        own = [field.name for field in fields(Stage2Fine) if field.name not in Stage2.__dataclass_fields__]
        yield "Every field of `stage2` and of the sections in it, with the same default, and:"
        yield table(section, path, own)
        return
    yield table(section, path)
    for field in fields(section):
        if is_dataclass(inner := getattr(section, field.name)):
            yield from _section(inner, f"{path}.{field.name}")


def table(section: Any, path: str, only: list[str] | None = None) -> str:
    """A row for each field of an instance; `only` those of these names."""
    hints = get_type_hints(type(section))
    shown = [field for field in fields(section) if only is None or field.name in only]
    kept = bool(path) or type(section) is Config
    rows = ["| field | takes | default | |", "|---|---|---|---|"]
    for field in shown:
        if is_dataclass(getattr(section, field.name)):
            continue
        name = f"{path}.{field.name}" if path else field.name
        star = "\\*" if kept and re.fullmatch(configs.OPEN_FIELDS, name) else ""
        words = docstrings(type(section))[field.name]
        cells = [f"`{name}`{star}", takes(section, field.name, hints[field.name]), default(field), words]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def default(field: Field) -> str:
    """The value of a field that is not given."""
    value = field.default
    if value is MISSING:
        return "has to be given"
    if value is None or value in ((), ""):
        return "none"
    return f"`{' '.join(map(str, value)) if isinstance(value, tuple) else value}`"


def takes(section: Any, name: str, hint: Any) -> str:
    """What a field takes, in words."""
    kinds = get_args(hint) if get_origin(hint) not in (None, Literal, tuple) else (hint,)
    found = []
    for kind in kinds:
        if kind is NoneType:
            continue
        if get_origin(kind) is Literal:
            found.append(", ".join(f"`{value}`" for value in get_args(kind)))
        elif get_origin(kind) is tuple:
            found.append(_several(section, name, get_args(kind)))
        else:
            found.append(_one(section, name, kind, lambda value: value))
    return " or ".join(found)


def _several(section: Any, name: str, of: tuple[Any, ...]) -> str:
    """What each part of a tuple takes."""
    if get_origin(of[0]) is Literal:
        return "any of " + ", ".join(f"`{value}`" for value in get_args(of[0]))
    many = of[-1] is ...
    count = 1 if many else len(of)
    if name in SAID:
        return SAID[name]
    of_each = _one(section, name, of[0], lambda value: (value,) * count)
    said = f"{'any number of' if many else count} {of_each}"
    return said.replace("whole number", "whole numbers").replace(" text", " texts")


def _one(section: Any, name: str, kind: type, as_value: Callable[[Any], Any]) -> str:
    """What a number, a text or a switch may be."""
    if kind not in (int, float):
        return NAMES[kind]
    probes = WHOLE if kind is int else SHARES
    allowed = [probe for probe in probes if accepted(section, name, as_value(probe))]
    limits = _whole(allowed) if kind is int else _share(allowed)
    return f"{NAMES[kind]}, {limits}" if limits else NAMES[kind]


def accepted(section: Any, name: str, value: Any) -> bool:
    """Whether the schema takes a value of a field, with the others as they are."""
    try:
        beside = BESIDE.get(name, lambda _: {})(value).items()
        there = {other: needed for other, needed in beside if hasattr(section, other)}
        replace(section, **there, **{name: value})
    except ValueError:
        return False
    return True


def _whole(allowed: list[int]) -> str:
    """The limits of whole numbers, of those of `WHOLE` that are allowed."""
    low, high = allowed[0], allowed[-1]
    if allowed != [probe for probe in WHOLE if low <= probe <= high]:
        return f"{', '.join(map(str, allowed[:4]))}, ..."
    if high == WHOLE[-1]:
        return "" if low == WHOLE[0] else f"at least {low}"
    return f"{low} to {high}"


def _share(allowed: list[float]) -> str:
    """The limits of numbers, of those of `SHARES` that are allowed."""
    low, high = allowed[0], allowed[-1]
    lower = {SHARES[0]: "", 0.0: "at least 0", LITTLE: "above 0"}[low]
    upper = "" if high == SHARES[-1] else f"at most {high:g}" if high in (0.5, 1.0) else f"below {high:g}"
    return " and ".join(words for words in (lower, upper) if words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.parse_args().file.write_text(page())


if __name__ == "__main__":
    main()
