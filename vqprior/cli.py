"""The commands as one table. What a command needs is imported once its arguments are parsed: a typo answers
at once."""

import difflib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn, TypeVar

from vqprior import brief, configs
from vqprior.configs import Config
from vqprior.configs.commands import (
    App,
    Check,
    Complete,
    Doctor,
    EncodePictures,
    Evaluation,
    Export,
    ImportCodes,
    Listing,
    Report,
    Score,
    TrainPrior,
)
from vqprior.configs.errors import UserError, refused_by_system
from vqprior.configs.schema import Drawing, Sample
from vqprior.runtime import devices
from vqprior.runtime.interrupt import Interrupted

if TYPE_CHECKING:
    from vqprior.runtime.run_dir import RunDir

Own = TypeVar("Own")
Whole = TypeVar("Whole", Evaluation, Report, Check)


@dataclass(frozen=True)
class Command:
    """One command: what it does, for the help, and the function that does it."""

    summary: str
    call: Callable[[str, str | None, list[str]], None]  # its own name, preset or run directory, flags


def _step(name: str, target: str | None, flags: list[str]) -> None:
    """A command that takes the whole configuration."""
    config = _config(name, target, flags)
    if name in ("encode", "train-prior"):
        need_run(config)
    from vqprior import pipeline

    pipeline.STEPS[name](config)


def _own_settings(schema: type[Own], name: str, target: str | None, flags: list[str]) -> tuple[Config, Own]:
    """The configuration of a run, and the settings of a command that looks at it and has its own."""
    stored = _stored(target)
    settings = configs.parse_options(schema, flags, prog=f"vqprior {name} {target or 'RUN'}")
    _need_target(name, target)
    need_run(stored)
    return stored, settings


OWN = {"app": App, "complete": Complete, "encode": EncodePictures, "export": Export, "score": Score}


def _look(name: str, target: str | None, flags: list[str]) -> None:
    """A command that looks at a run, and has settings of its own."""
    stored, settings = _own_settings(OWN[name], name, target, flags)
    from vqprior import pipeline

    pipeline.LOOKS[name](stored, settings)


def _encode(name: str, target: str | None, flags: list[str]) -> None:
    """`encode` takes the whole configuration; with --pictures, settings of its own."""
    if "--pictures" not in [flag.partition("=")[0] for flag in flags]:
        return _step(name, target, flags)
    _look(name, target, flags)


def _with_own(schema: type[Whole], name: str, target: str | None, flags: list[str]) -> tuple[Whole, Whole]:
    """The whole configuration with a command's own settings, and what it was before the flags."""
    stored = _stored(target)
    default = schema.of(stored if schema is Check else stored.for_inference())
    brief.answer(name, target, flags, default)
    config = configs.parse_options(schema, flags, default=default, prog=f"vqprior {name} {target or 'RUN'}")
    _need_target(name, target)
    return config, default


def _evaluate(name: str, target: str | None, flags: list[str]) -> None:
    """`evaluate` and `report` take the whole configuration, and settings of their own."""
    config, _ = _with_own({"evaluate": Evaluation, "report": Report}[name], name, target, flags)
    need_run(config)
    from vqprior import pipeline

    pipeline.MEASURES[name](config)


def _check(name: str, target: str | None, flags: list[str]) -> None:
    """So does `check`, which needs no run."""
    config, default = _with_own(Check, name, target, flags)
    _need_out(name, config)
    from vqprior import pipeline

    pipeline.check(config, target, default, flags)


def _sample(name: str, target: str | None, flags: list[str]) -> None:
    """`sample` takes the settings of its own section; --out is where the pictures go."""
    stored = _stored(target)
    settings = configs.parse_options(
        Sample, flags, default=stored.sample, prog=f"vqprior {name} {target or 'RUN'}"
    )
    _need_target(name, target)
    need_run(stored)
    from vqprior import pipeline

    pipeline.sample(settings, stored)


def _complete(name: str, target: str | None, flags: list[str]) -> None:
    """`complete` has settings of its own; how codes are drawn is set in the run's section `sample`, as for
    `sample`."""
    stored = _stored(target)
    drawing = {
        field.name: getattr(stored.sample, field.name)
        for field in fields(Drawing)
        if field.name != "batch_size"
    }
    _look(name, target, [*configs.as_flags(drawing), *flags])


def _import_codes(name: str, target: str | None, flags: list[str]) -> None:
    """`import-codes` takes a file in place of a run."""
    settings = configs.parse_options(ImportCodes, flags, prog=f"vqprior {name} {target or 'FILE'}")
    if target is None:
        raise UserError(
            f"vqprior {name} needs a file of codes first: vqprior {name} codes.npz --out runs/mine"
        )
    from vqprior import pipeline

    pipeline.import_codes(Path(target), settings)


def _list(name: str, target: str | None, flags: list[str]) -> None:
    """`ls` takes a folder of runs."""
    configs.parse_options(Listing, flags, prog=f"vqprior {name} [FOLDER]")
    from vqprior import listing

    print(listing.show(Path(target or "runs")), flush=True)


def _doctor(name: str, target: str | None, flags: list[str]) -> None:
    """`doctor` looks at the machine, and takes no run."""
    configs.parse_options(Doctor, flags, prog=f"vqprior {name}")
    if target is not None:
        raise UserError(f"vqprior {name} looks at this machine and takes nothing, but was given {target!r}")
    from vqprior import doctor, onward

    doctor.show(devices.chosen())
    print(onward.next_line(*onward.to_begin()), flush=True)


COMMANDS = {
    "run": Command("all steps in order, each resumed or skipped where it is done", _step),
    "check": Command("look at all pictures before training; suggest settings for them", _check),
    "train-vqvae": Command("stage one: train the VQ-VAE", _step),
    "encode": Command("images -> code maps, with the trained VQ-VAE; of any --pictures FOLDER", _encode),
    "train-prior": Command("stage two: train the prior on the code maps", _step),
    "sample": Command("draw new images from the prior and decode them", _sample),
    "complete": Command("fill in the hidden part of a picture, several times", _complete),
    "score": Command("how unusual each of --pictures FOLDER is, and where", _look),
    "evaluate": Command("measure a run, from reconstructions to samples, into metrics.json", _evaluate),
    "report": Command("one HTML file with the pictures, figures and curves of a run", _evaluate),
    "app": Command("a page in the browser: draw, change codes, complete pictures", _look),
    "import-codes": Command("codes of another tokenizer, or of anything, -> a run to train", _import_codes),
    "export": Command("a small folder to share: what sampling needs of a run", _look),
    "ls": Command("the runs in a FOLDER (runs without it): state, steps and figures", _list),
    "doctor": Command("versions, devices, what is optional and missing", _doctor),
}

USAGE = """usage: vqprior COMMAND (PRESET | RUN) [--flags]

{commands}

PRESET is a YAML file or the name of one that ships: {presets}.
RUN is the directory of a run. The same command again resumes, or says that all is done.
`vqprior COMMAND --help` shows the flags that matter, --help-all every one of them.
--device cpu | cuda | cuda:1 | mps | auto goes with every command."""


def usage() -> str:
    """The commands and presets, as text."""
    commands = "\n".join(f"  {name:<12} {command.summary}" for name, command in COMMANDS.items())
    return USAGE.format(commands=commands, presets=", ".join(configs.preset_names()))


def _need_target(name: str, target: str | None) -> None:
    if target is None:
        raise UserError(f"vqprior {name} needs a preset or a run directory first: vqprior {name} mnist5k")


def _need_out(name: str, config: Config) -> None:
    if not config.out:  # of no word, too, as a shell makes of a variable that is not set
        raise UserError(f"vqprior {name} needs a folder for the new run: --out runs/NAME")


def need_run(config: Config) -> "RunDir":
    """The run that a command takes; refuses, before torch is waited for, where there is none."""
    from vqprior.runtime import run_dir

    return run_dir.existing(config)


def _stored(target: str | None) -> Config:
    """The configuration that a run directory or a preset gives, `out` filled in; the defaults where none is
    named."""
    if target is None:
        return Config()
    if (Path(target) / "config.yaml").is_file():
        from vqprior.runtime.run_dir import RunDir

        return replace(RunDir(Path(target)).config(), out=target)
    preset = configs.find_preset(target)
    config = configs.parse(preset, [])
    return config if config.out else replace(config, out=str(Path("runs") / preset.stem))


def _begun_from(name: str, flags: list[str]) -> str | None:
    """The run whose stage one a new run begins from, which says all settings where no target does."""
    return configs.typed(flags, "stage1.init") if name in ("run", "train-vqvae") else None


def _config(name: str, target: str | None, flags: list[str]) -> Config:
    """The configuration of a step: that of its target, then its flags."""
    default = _stored(target)
    if target is None and (source := _begun_from(name, flags)):
        target, default = source, replace(_stored(source), out=None)
    if name == "encode":
        default = default.for_inference()
    schema = TrainPrior if name == "train-prior" else Config
    default = TrainPrior.of(default) if name == "train-prior" else default
    brief.answer(name, target, flags, default)
    prog = f"vqprior {name} {target or 'PRESET'}"
    config = configs.parse_options(schema, flags, default=default, prog=prog)
    _need_target(name, target)
    _need_out(name, config)
    return config


def _device(words: list[str]) -> tuple[str, list[str]]:
    """The word of --device, `auto` without it, and the other words; of two the last one counts.

    Raises:
        UserError: nothing stands behind --device.
    """
    device, rest, left = devices.AUTO, [], iter(words)
    for word in left:
        flag, equals, value = word.partition("=")
        if flag != "--device":
            rest.append(word)
            continue
        device = value if equals else next(left, "")
        if not device or device.startswith("-"):
            raise UserError(f"--device says nothing; it is one of {devices.EXPECTED}: --device cpu")
    return device, rest


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, in any thread; the exit code: 0 for success, 2 for a user's mistake."""
    code = _run(list(sys.argv[1:] if argv is None else argv))
    if processes := sys.modules.get("vqprior.runtime.processes"):
        processes.note_end(code)
    return code


def _run(arguments: list[str]) -> int:
    try:
        device, words = _device(arguments)
        if not words or words[0] in ("-h", "--help", "help"):
            print(usage(), flush=True)
            return 0 if words else 2
        if words[0] == "--version":
            from vqprior.runtime.run_dir import package_version

            print(package_version(), flush=True)
            return 0
        name, *rest = words
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
            raise UserError(f"there is no command {name!r}; {hint}")
        target = rest.pop(0) if rest and not rest[0].startswith("-") else None
        with devices.choose(device):
            COMMANDS[name].call(name, target, rest)
    except UserError as error:
        if _first_to_say(str(error)):
            print(f"vqprior: {error}", file=sys.stderr)
        return 2
    except (Interrupted, SystemExit) as stop:  # told to stop, or tyro has said what is wrong with a flag
        return stop.code
    except OSError as error:  # such as a full disk under TensorBoard's own writer
        if isinstance(error, BrokenPipeError):  # `vqprior ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        print(f"vqprior: {refused_by_system(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "vqprior: stopped at once; what is on disk is whole, and the same command goes on",
            file=sys.stderr,
        )
        return 128 + signal.SIGINT
    return 0


def entry(call: Callable[[], int] = main) -> NoReturn:
    """The program: a command, and the way out with its exit code; one of several processes leaves in its own
    way."""
    if getattr(sys.stdout, "errors", "") == "strict":  # names of files may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code, error = call(), None
    except Exception as fault:  # of this program, or of a process that this one waited for
        code, error = 1, fault
    leaving = _way_out()
    if leaving is None and error:
        raise error
    if leaving is None:
        sys.exit(code)
    if error:
        leaving.tell(error)
    leaving.leave(code)


def _first_to_say(text: str) -> bool:
    """Whether no other process has said so; torch is not waited for where there is one alone."""
    if "RANK" not in os.environ:
        return True
    from vqprior.runtime.rendezvous import first_to_say

    return first_to_say(text)


def _way_out() -> ModuleType | None:
    """How one of several processes leaves; None for one alone, and torch is not waited for to find that
    out."""
    if "vqprior.runtime.processes" not in sys.modules:
        return None
    from vqprior.runtime import leaving

    return leaving if leaving.is_one_of_several() else None
