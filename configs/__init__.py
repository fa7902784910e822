"""Presets and flags: defaults of the schema < YAML preset < flags.

A preset is only a file of flags. Its tree is flattened to `--stage1.K 512 ...` and put before the user's own
flags, so there is one parser, one check of types, and one way a typo is answered, wherever it was made.
"""

import difflib
import functools
import inspect
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from .errors import UserError, command_line
from .schema import KINDS_WITH, PLACES, Config, Stage1

PRESETS = Path(__file__).parent
Options = TypeVar("Options")

OPEN_FIELDS = (
    r"out|tracker|sample\..*|compile|cuda_graph|inference_batch"
    rf"|data\.({'|'.join(PLACES)})"
    r"|stage(1|2|2_fine)\.(steps|accumulate|log_every|eval_every|save_every|keep)"
    r"|stage1\.features\.(weights|heads)"
)
"""The fields that a run may change when it is resumed; all others are fixed by its first start."""


DEVICE_HELP = """--device cpu | cuda | cuda:1 | mps | auto, with every command: where the networks compute.
It belongs to the machine and not to the run, so no run keeps it; auto, the default, is a GPU where
there is one."""


# Docstrings are the help; to look for comments, too, takes half as long again
MARKS = (tyro.conf.FlagConversionOff, tyro.conf.HelptextFromCommentsOff)
HELP_ALL = "--help-all"  # the help of every field; some commands answer --help with a shorter one


def preset_names() -> list[str]:
    """The presets that ship."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def find_preset(name: str) -> Path:
    """The file of a preset: a path, or the name of one that ships, with or without `.yaml` or `configs/`
    before it.

    Raises:
        UserError: there is no such file.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = PRESETS / f"{path.stem}.yaml"
    if shipped.is_file() and str(path.parent) in (".", "configs"):
        return shipped
    if path.is_dir():
        out = Path("runs") / (path.resolve().name or "mine")
        raise UserError(
            f"{name} is not a run directory: it has no config.yaml. If it holds your pictures, begin with a "
            f"preset: {command_line('check', 'folder', '--data.root', name, '--out', out)}"
        )
    if len(path.parts) > 1:
        raise UserError(
            f"there is no run directory {name!r}, nor such a YAML file; `vqprior ls` lists the runs that are "
            "in runs, and a preset begins one: vqprior run mnist5k"
        )
    near = difflib.get_close_matches(name, preset_names(), n=1)
    raise UserError(
        f"there is no preset or run directory {name!r}; "
        + (f"did you mean {near[0]}? " if near else "")
        + f"Presets that ship: {', '.join(preset_names())}; or give the path of your own YAML file, or a run "
        "directory"
    )


class _Once(yaml.SafeLoader):
    """PyYAML's safe loader; of a name that is there twice it would take the last one in silence."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = [name for name, _ in node.value]
        for place, name in enumerate(names):
            if name.value in [earlier.value for earlier in names[:place]]:
                where = str(name.start_mark)
                raise yaml.YAMLError(f"it has {name.value} twice; join them, or leave one out\n{where}")
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """The tree of a YAML file.

    Raises:
        UserError: the file is not YAML, or not a tree of names and values, each there once.
    """
    try:
        tree = yaml.load(path.read_text(), _Once)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if tree is not None and not isinstance(tree, dict):
        raise UserError(
            f"{path} holds {type(tree).__name__}, but a preset is a tree such as `stage1: {{K: 512}}`"
        )
    # `stage2:` with nothing below it
    return {name: value for name, value in (tree or {}).items() if value is not None}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"stage1": {"K": 512}} -> {"stage1.K": 512}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def as_flags(tree: dict[str, Any]) -> list[str]:
    """{"stage1": {"K": 512}} -> ["--stage1.K", "512"].

    Raises:
        UserError: a class is given by what is neither a name nor a number.
    """
    flags: list[str] = []
    for key, value in flatten(tree).items():
        if key == "sample.label":
            flags.append(f"--{key}={_class_as_text(value)}")  # with a sign between: it may begin with a dash
        else:
            if value is False and key.endswith("precision"):
                value = "no"  # which YAML reads as false
            values = value if isinstance(value, (list, tuple)) else [value]
            flags += [f"--{key}", *(str(v) for v in values)]
    return flags


def _class_as_text(value: Any) -> str:
    """A class in YAML, where a number is no string, as a flag has it: null is none, a number is `#3`.

    Raises:
        UserError: it is something else: YAML reads the word no without quotation marks as false.
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"#{value}"
    raise UserError(
        f"sample.label is read from YAML as {value!r}, which is not a class; it takes the name of a class in "
        'quotation marks, or its number: label: "no"'
    )


def parse_options(
    schema: type[Options], flags: Sequence[str], *, default: Options | None = None, prog: str = "vqprior"
) -> Options:
    """An instance of a dataclass from flags, starting at its defaults or at `default`; what that says of a
    quantizer or of levels that the flags replace is put back to the schema's defaults.

    Raises:
        UserError: values that are each of the right type but do not fit together, or are no finite numbers.
        SystemExit: with code 2 and a message for an unknown name or a value of the wrong type; with 0 after
            --help or --help-all.
    """
    if default is not None:
        flags = [*_taken_back(flatten(asdict(default)), flags), *flags]
    try:
        found = tyro.cli(
            schema,
            args=["--help" if flag == HELP_ALL else flag for flag in flags],
            prog=prog,
            description=f"{inspect.getdoc(schema)}\n{DEVICE_HELP}",
            default=default if default is not None else tyro.MISSING_NONPROP,
            use_underscores=True,
            config=MARKS,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    _refuse_infinite(found)
    return found


def _refuse_infinite(options: Any) -> None:
    """Refuse inf and nan in any field with a UserError: most comparisons with nan let it pass."""
    for name, value in flatten(asdict(options)).items():
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise UserError(f"{name} is {value}; it takes finite numbers")


def parse(preset: Path | None, flags: Sequence[str], *, prog: str = "vqprior") -> Config:
    """The configuration of a preset and flags; raises as `parse_options` and `read_yaml` do."""
    of_preset = as_flags(read_yaml(preset) if preset else {})
    names = [flag.partition("=")[0].removeprefix("--") for flag in of_preset if flag.startswith("--")]
    return parse_options(Config, [*of_preset, *_taken_back(names, flags), *flags], prog=prog)


def typed(flags: Sequence[str], name: str) -> str | None:
    """The first word behind the last flag of this name, None where there is none."""
    words = [part for flag in flags for part in flag.split("=", 1)]
    return next((after for word, after in reversed([*pairwise(words)]) if word == f"--{name}"), None)


def _without_use(quantizer: str | None, *, one_level: bool) -> tuple[str, ...]:
    """The beginnings of the names of settings that are refused with this quantizer, and with one level."""
    others = [f"stage1.{name}" for name, kinds in KINDS_WITH.items() if quantizer and quantizer not in kinds]
    return (*others, *(["stage2_fine."] if one_level else []))


def _taken_back(before: Iterable[str], flags: Sequence[str]) -> list[str]:
    """Flags that put back to its default what a preset says of a quantizer, or of finer levels, that the
    flags behind it do away with: nobody could leave it out.

    Args:
        before: the names of the settings that are there.
    """
    quantizer, one_level = typed(flags, "stage1.quantizer"), typed(flags, "stage1.levels") == "1"
    if not quantizer and not one_level:
        return []
    plain, idle = flatten(asdict(Config())), _without_use(quantizer, one_level=one_level)
    return as_flags({name: plain[name] for name in before if name in plain and name.startswith(idle)})


def dump(config: Config) -> str:
    """The configuration as YAML with every field, the inverse of `parse`."""
    tree = json.loads(json.dumps(asdict(config)))  # YAML has no tuples either
    return yaml.safe_dump(tree, sort_keys=False)


def from_tree(tree: dict[str, Any]) -> Config:
    """The configuration that a run or a checkpoint keeps, as `dataclasses.asdict` and YAML give its tree;
    raises as `parse_options` does.

    What nobody may set under its other settings was at the default of its time, and is at that of today.
    """
    flat = flatten(tree)
    quantizer, levels = flat.get("stage1.quantizer", Stage1.quantizer), flat.get("stage1.levels", 1)
    idle = _without_use(quantizer, one_level=levels == 1)
    kept = {name: value for name, value in flat.items() if not name.startswith(idle)}
    return _from_flags(tuple(as_flags(kept)))


@functools.lru_cache(maxsize=64)
def _from_flags(flags: tuple[str, ...]) -> Config:
    """The configuration of flags alone: the same object, which nothing changes, for the same flags."""
    return parse_options(Config, flags)


def differences(stored: Config, given: Config, sections: str) -> list[str]:
    """In words, the fixed fields of the sections (a pattern, such as "data|stage1") that differ, but for
    those that change nothing."""
    old, new = flatten(asdict(stored)), flatten(asdict(given))
    passed_over = rf"{OPEN_FIELDS}|({'|'.join(given.unused())})\..*"
    fixed = (
        name for name in old if re.match(rf"({sections})(\.|$)", name) and not re.fullmatch(passed_over, name)
    )
    return [f"{name} is {old[name]} there and {new[name]} now" for name in fixed if old[name] != new[name]]
