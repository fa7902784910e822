"""One screen of help for the commands that take a whole configuration; `--help-all` explains every field."""

import ast
import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from operator import attrgetter
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vqprior.configs import Config

NARROW, WIDE = 80, 110  # columns, at least and at most
LONG = 80  # characters of a clause, from which on it ends at a colon
INDENT = 30  # where the words begin, behind a flag and its value
DEVICE = "--device cpu | cuda | cuda:1 | mps | auto goes with every command: where to compute."

DATA = ("data.source", "data.root", "data.size", "data.channels", "data.flip")
STAGE1 = [f"stage1.{name}" for name in ("K", "factor", "levels", "quantizer", "batch_size", "steps")]
STAGE2 = [f"stage2.{name}" for name in ("prior", "channels", "layers", "dropout", "batch_size", "steps")]
SAMPLES = ("sample.guidance", "sample.temperature", "sample.top_p")
MEASURING = ("data.root", "inference_batch", "precision")


@dataclass(frozen=True)
class Screen:
    """What the help of a command shows."""

    purpose: str
    target: str
    groups: dict[str, Sequence[str]]  # a heading and its fields, by their paths
    examples: tuple[str, ...]


SCREENS = {
    "run": Screen(
        "All steps in order: pictures -> codes -> a prior over them -> new pictures.",
        "(PRESET | RUN)",
        {
            "pictures": DATA,
            "stage one, the VQ-VAE": STAGE1,
            "stage two, the prior": STAGE2,
            "run": ("out", "precision"),
        },
        (
            "vqprior run mnist5k",
            "vqprior run folder --data.root PHOTOS --data.size 128 128 --out runs/photos",
        ),
    ),
    "train-vqvae": Screen(
        "Stage one: train the VQ-VAE.",
        "(PRESET | RUN)",
        {"pictures": DATA, "stage one": STAGE1, "run": ("out", "seed", "precision")},
        ("vqprior train-vqvae cifar10 --stage1.K 1024",),
    ),
    "encode": Screen(
        "Pictures -> code maps, with the trained VQ-VAE; or the codes of any other pictures.",
        "RUN",
        {"encoding": MEASURING},
        ("vqprior encode runs/photos", "vqprior encode runs/photos --pictures OTHERS --out codes"),
    ),
    "train-prior": Screen(
        "Stage two: train the prior on the code maps.",
        "RUN",
        {
            "stage two": (*STAGE2, "stage2.learning_rate", "stage2.label_dropout"),
            "run": ("level", "precision"),
        },
        ("vqprior train-prior runs/photos", "vqprior train-prior runs/photos --stage2.prior transformer"),
    ),
    "evaluate": Screen(
        "Measure a run, from reconstructions to samples, into metrics.json.",
        "RUN",
        {
            "what is measured": ("images", "only", "features", "archives"),
            "samples": SAMPLES,
            "how": ("classifier_steps", *MEASURING),
        },
        ("vqprior evaluate runs/photos", "vqprior evaluate runs/photos --only ladder --images 2000"),
    ),
    "report": Screen(
        "One HTML file with the pictures, figures and curves of a run.",
        "RUN",
        {"page": ("file",), "samples": SAMPLES, "how": MEASURING},
        ("vqprior report runs/photos --file photos.html",),
    ),
    "check": Screen(
        "Look at all pictures before training, and suggest settings for them.",
        "(PRESET | RUN)",
        {"pictures": DATA, "what is written": ("write", "sheet", "out")},
        ("vqprior check folder --data.root PHOTOS --write my.yaml",),
    ),
}


def answer(name: str, target: str | None, flags: Sequence[str], default: Config) -> None:
    """Where the flags ask for help, print the screen of a command with the values of a configuration.

    Raises:
        SystemExit: with 0, after that.
    """
    if "-h" in flags or "--help" in flags:
        columns = min(max(shutil.get_terminal_size().columns, NARROW), WIDE)
        print(screen(name, target, default, columns), flush=True)
        raise SystemExit(0)


def screen(name: str, target: str | None, default: Config, columns: int = NARROW) -> str:
    """The help of a command as text of at most so many columns."""
    shown = SCREENS[name]
    of_target = f"vqprior {name} {target or shown.target}"
    lines = [f"usage: {of_target} [--flag VALUE ...]", *textwrap.wrap(shown.purpose, columns)]
    for heading, paths in shown.groups.items():
        lines.append(f"{heading}:")
        for path in paths:
            lines += _field(path, default, columns)
    footer = f"--help-all explains every field. {DEVICE}"
    examples = [f"  {example}" for example in shown.examples]
    return "\n".join([*lines, "examples:", *examples, *textwrap.wrap(footer, columns)])


def _field(path: str, config: Config, columns: int) -> Iterator[str]:
    """A flag with the value that it has now, and what it is in a few words."""
    section, _, name = path.rpartition(".")
    owner = attrgetter(section)(config) if section else config
    flag = f"  --{path} {_as_typed(getattr(owner, name))}".rstrip()
    first, *rest = textwrap.wrap(_words(type(owner), name), columns - INDENT)
    if len(flag) < INDENT:
        yield f"{flag:<{INDENT}}{first}"
    else:
        yield from (flag, " " * INDENT + first)
    yield from (" " * INDENT + line for line in rest)


def _as_typed(value: Any) -> str:
    """A value as it stands behind its flag; nothing for none."""
    values = value if isinstance(value, tuple) else () if value is None else (value,)
    return " ".join(map(str, values))


def _words(owner: type, name: str) -> str:
    """The first clause of a field's docstring, and the words that it may take, where these are few."""
    text = docstrings(owner)[name]
    clause = re.split(r"[;.](?:\s|$)", text)[0]
    if len(clause) > LONG:
        clause = clause.partition(": ")[0]
    choices = _choices(get_type_hints(owner)[name])
    return f"{clause} ({' | '.join(choices)})" if choices else clause


def _choices(hint: Any) -> list[str]:
    """The words of a Literal, or of a tuple of them."""
    if get_origin(hint) is tuple:
        return _choices(get_args(hint)[0])
    words = get_args(hint) if get_origin(hint) is Literal else ()
    return [word for word in words if isinstance(word, str)]


@cache
def docstrings(owner: type) -> dict[str, str]:
    """The docstring of each field of a dataclass, those of its bases among them, as one line."""
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
        for field, below in pairwise(body):  # a field, and what stands below it
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                found[field.target.id] = " ".join(below.value.value.split())
    return found
