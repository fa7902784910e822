"""Every command line that the documents print: run on tiny data, or parsed where it cannot be run, and the
reason said.

A block of a document runs in a folder of its own, line by line, as it is printed but for flags that make it
small, which are put behind (the last flag wins). A line with a command that is neither understood nor listed
in NOT_RUN fails.
"""

import glob
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.conftest import TINY_MAPS, colour, write_pictures
from tests.launch import ROOT, environment
from vqprior import cli, configs, pipeline
from vqprior.cli import COMMANDS, main
from vqprior.runtime import lock

pytestmark = pytest.mark.slow

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS += sorted((ROOT / "configs").glob("*.yaml"))
SCRIPTS = Path(sys.executable).parent

NOT_RUN = {
    "git clone": "needs a copy of the repository elsewhere",
    "pytest": "it is what runs this",
    "ruff": "CI runs it",
    "sudo": "makes network namespaces",
    "cd": "goes with it",
    "export": "sets a variable for the lines after it",
    "srun": "needs SLURM",
    "scancel": "needs SLURM",
    "scontrol": "needs SLURM",
    "torchrun --nnodes": "needs several machines",
    "accelerate launch --multi_gpu": "needs several machines with GPUs",
    "vqprior evaluate runs/x --features": "downloads a network",
    "vqprior run mnist5k --tracker": "needs an account or a server",
    "vqprior encode digits": "needs MNIST itself, whose fingerprint the weights carry",
    "vqprior evaluate digits": "the same",
    "vqprior encode photos64": "needs the photographs of models/clothing64, likewise",
    "vqprior train-vqvae clothing64 --stage1.init models/clothing64": "no small sizes fit its weights",
    "vqprior encode runs/plain64": "goes with it",
    "vqprior app": "it serves until it is told to stop",
}
"""Beginnings of command lines that are not run. They are parsed all the same, by their launcher and by
vqprior."""

SHELL = ("cp", "mkdir", "rm", "sed")
LAUNCHERS = ("torchrun", "accelerate", "srun")
UNDERSTOOD = ("vqprior", "python", "pip", "tensorboard", *SHELL, *LAUNCHERS)

SMALL = [
    *TINY_MAPS,
    "--stage2.label_dropout",
    "0.2",
    "--data.source",
    "folder",
    "--data.workers",
    "0",
    "--data.margin",
    "1",
]
SMALL += ["--data.crop", "8"]
BEHIND = {
    **dict.fromkeys(("run", "train-vqvae", "check"), SMALL),
    "train-prior": "--stage2.steps 4 --stage2.save_every 2 --stage2.eval_every 4".split(),
    "sample": ["--images", "4"],
    "evaluate": ["--images", "8", "--classifier_steps", "3"],
    "complete": ["--images", "2", "--draws", "4"],
}
"""Flags put behind a command; a command that is not here runs as it is."""
FINE = "--stage2_fine.steps 4 --stage2_fine.save_every 2 --stage2_fine.eval_every 4".split()
FINE += "--stage2_fine.batch_size 8 --stage2_fine.channels 8 --stage2_fine.layers 2".split()
OF_TERMS = {"--stage1.perceptual": ["--stage1.features.steps", "3"]}
"""Flags that make small what a flag asks for."""
ONE_BLOCK = ["--stage2.pixelsnail.blocks", "1"]
OF_PRIORS = {
    "mnist_pixelsnail": ONE_BLOCK,
    "mnist_transformer": ["--stage2.transformer.heads", "2"],
    "ffhq256": ONE_BLOCK,
    "imagenet256": ONE_BLOCK,
}
"""Flags that make the priors of some presets small."""
OF_LEVELS = ("folder", "my.yaml", "clothing64", "ffhq256", "imagenet256")
"""Presets with finer priors."""

STANDS_FOR = {"SEED": "0", "RUN": "runs/x", "OUT": "out", "K": "16"}
PICTURES = ("PHOTOS", "FOLDER", "FOLDER_OR_HUB_NAME", "IMAGENET")


class Block(NamedTuple):
    """Command lines that stand together in a document."""

    name: str
    lines: list[str]


def blocks(document: Path) -> Iterator[Block]:
    """The indented and fenced blocks of a document, or the head of a preset, that hold commands."""
    text = document.read_text()
    if document.suffix == ".yaml":
        text = re.sub(r"^(#   ?|#$|.*)", lambda line: "    " if line[0] == "#   " else "", text, flags=re.M)
        text = re.sub(r"(   |\s)\([^()]*(\([^()]*\)[^()]*)*\)?$|      on several GPUs$", "", text, flags=re.M)
    pattern = r"```(?:bash|sh)\n(?P<fenced>.*?)```|(?:(?<=\n\n)|^)(?P<indented>(?: {4}[^\n]*\n)+)"
    for found in re.finditer(pattern, text, re.S):
        lines = logical_lines(found["fenced"] or found["indented"])
        if any(is_command(line) for line in lines):
            place = text[: found.start()].count("\n") + 1
            yield Block(f"{document.name}:{place}", [line for line in lines if is_command(line)])


def logical_lines(text: str) -> list[str]:
    """Lines that end in a backslash are joined with the next."""
    return [line.strip() for line in re.sub(r"\\\n\s*", " ", text).splitlines() if line.strip()]


def is_command(line: str) -> bool:
    """Whether a line of a block is a command: something that this machine, or a document's, would execute."""
    first = re.split(r"\s", line, maxsplit=1)[0]
    known = (*UNDERSTOOD, *(beginning.split()[0] for beginning in NOT_RUN))
    return first in known or bool(
        re.fullmatch(r"[a-z][\w-]*", first) and shutil.which(first) and line[-1] not in "{}"
    )


def commands_in(line: str) -> list[str]:
    """`a && b  # why` -> [a, b]."""
    line = re.sub(r"\s#( .*|$)", "", line).removesuffix(" &")
    return [command.strip() for command in line.split("&&")]


BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]


@pytest.fixture(scope="module")
def small_run(tmp_path_factory) -> Path:
    """A folder with pictures of cats and dogs and a finished run, by the console script."""
    folder = tmp_path_factory.mktemp("documents")
    write_pictures(folder / "pictures", 32, ("cat", "dog"))
    flags = [*SMALL, "--stage1.levels", "1", "--data.copies", "1", "--data.flip", "True"]
    flags += ["--data.root", str(folder / "pictures")]
    words = [str(SCRIPTS / "vqprior"), "run", "folder", *flags, "--out", str(folder / "run")]
    done = subprocess.run(
        words, cwd=folder, env=environment(None), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture
def place(small_run, tmp_path, monkeypatch) -> Path:
    """A folder with all that the documents' commands name, and the current one."""
    folder = tmp_path / "place"
    (folder / "runs").mkdir(parents=True)
    for name in PICTURES:
        (folder / name).symlink_to(small_run / "pictures")
    shutil.copytree(ROOT / "models", folder / "models")
    files = sorted(
        path.relative_to(small_run / "pictures") for path in (small_run / "pictures").rglob("*.png")
    )
    table = ["file,label", *(f"{file},{file.parent}" for file in files)]
    (folder / "labels.csv").write_text("\n".join(table))
    colour(1, 40, 40).save(folder / "photo.png")
    colour(2, 40, 40).convert("L").point(lambda value: 255 * (value > 128)).save(folder / "mask.png")
    archive = {
        "images": np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8),
        "labels": np.arange(8) % 2,
    }
    np.savez(folder / "other_model.npz", **archive)
    np.savez(folder / "codes.npz", codes=np.random.default_rng(0).integers(0, 512, (80, 3, 4)))
    np.save(folder / "labels.npy", np.arange(80) % 2)
    (folder / "baselines" / "one").mkdir(parents=True)
    np.savez(folder / "baselines" / "one" / "samples.npz", **archive)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


def prepare(words: list[str], small_run: Path) -> None:
    """Put the finished run, and a preset, wherever a command looks at one that no line before it made."""
    begins = words[0] in ("python", "mkdir") or words[1] in ("run", "train-vqvae", "check", "import-codes")
    if words[2:3] == ["my.yaml"] and not Path("my.yaml").exists():
        shutil.copy(ROOT / "configs" / "folder.yaml", "my.yaml")
    sources = [words[at + 1] for at, word in enumerate(words) if word in ("--stage1.init", "--stage2.init")]
    for named in re.findall(r"(?<![\w/])runs/[\w-]+", " ".join(words)):
        if (not begins or named in sources) and not Path(named).exists():
            shutil.copytree(small_run / "run", named)


def small(words: list[str]) -> list[str]:
    """The words behind `vqprior` with what makes them small."""
    more = BEHIND.get(words[0], [])
    if more is SMALL:
        if "--stage1.init" in words and words[1] in OF_LEVELS:  # the run that is there has one
            words = [*words, "--stage1.levels", "1"]
        levels = configs.typed(words, "stage1.levels") or ("2" if words[1] in OF_LEVELS else "1")
        words = [*words, *OF_PRIORS.get(words[1], []), *(FINE if levels != "1" else [])]
    for name, flags in OF_TERMS.items():
        words = [*words, *(flags if name in words else [])]
    root = ["--data.root", "PHOTOS"] if more is SMALL and "--data.root" not in words else []
    return [*words, *more, *root]


def expanded(words: list[str]) -> list[str]:
    """As the shell does it with *; a pattern that names what `and so on` left out is dropped."""
    return [name for word in words for name in (sorted(glob.glob(word)) if "*" in word else [word])]


def parse_only(command: str, words: list[str], monkeypatch) -> None:
    """Have a line parsed by its launcher and by vqprior, with nothing behind them."""
    while words[0] in ("srun", "sudo"):
        words = words[1:]
    if words[0] == "torchrun":
        from torch.distributed.run import parse_args

        options = parse_args(words[1:])
        assert options.module and options.training_script == "vqprior", command
        words = ["vqprior", *options.training_script_args]
    elif words[0] == "accelerate":
        from accelerate.commands.launch import launch_command_parser

        options = launch_command_parser().parse_args(words[2:])
        assert options.module and options.training_script == "vqprior", command
        words = ["vqprior", *options.training_script_args]
    if words[:2] == ["python", "-m"]:
        parse_benchmark(words[2:], monkeypatch)
    elif words[0] == "vqprior":
        with monkeypatch.context() as patch:
            nothing = lambda *_: None
            patch.setattr(cli, "need_run", nothing)
            for table in (pipeline.STEPS, pipeline.MEASURES, pipeline.LOOKS):
                for name in table:
                    patch.setitem(table, name, nothing)
            for name in ("check", "import_codes", "sample"):
                patch.setattr(pipeline, name, nothing)
            assert call(words[1:]) == 0, command


def parse_benchmark(words: list[str], monkeypatch) -> None:
    """Have a benchmark parse its arguments, and no more."""
    import argparse

    class Parsed(Exception):
        pass

    real = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *arguments: object) -> None:
        real(self, *arguments)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(sys, "argv", words)
        try:
            module = import_module(words[0])
            if hasattr(module, "__path__"):  # a folder, which runs its __main__
                module = import_module(f"{words[0]}.__main__")
        except SystemExit:  # it compares with a package that is not here
            source = (ROOT / f"{words[0].replace('.', '/')}.py").read_text()
            taken = re.findall(r'add_argument\(\s*"(--\w+)"', source)
            assert {word for word in words if word.startswith("--")} <= {*taken}, words
            return
        with pytest.raises(Parsed):
            module.main()


def call(words: list[str]) -> int:
    """`vqprior WORDS` in this process."""
    try:
        return main(words)
    except SystemExit as error:
        return error.code or 0
    finally:
        lock.release_all()


def launched(words: list[str]) -> list[str]:
    """A launcher's line with two processes for torchrun and one for accelerate, on CPUs, and a small run
    behind."""
    at = words.index("vqprior") + 1
    if words[0] == "torchrun":
        head = re.sub(r"--nproc_per_node \d+", "--nproc_per_node 2", " ".join(words[1:at])).split()
        head = ["torchrun", "--standalone", *head]
    else:
        head = ["accelerate", "launch", "--cpu", "--num_processes", "1", *words[2:at]]
    return [str(SCRIPTS / head[0]), *head[1:], *small(words[at:])]


def run_command(command: str, small_run: Path, monkeypatch) -> None:
    """Run one command of a document as far as this machine can."""
    words = [STANDS_FOR.get(word, word) for word in shlex.split(command.replace("-SEED", "-0"))]
    prepare(words, small_run)
    reason = next((NOT_RUN[beginning] for beginning in NOT_RUN if command_begins(words, beginning)), None)
    needs_a_gpu = "--cuda_graph" in words
    if reason or needs_a_gpu or (words[0] == "python" and words[1] == "-m"):
        parse_only(command, words, monkeypatch)
    elif words[0] == "vqprior":
        assert call(small(expanded(words[1:]))) == 0, command
    elif words[0] in LAUNCHERS:
        subprocess.run(launched(words), env=environment(None), check=True, timeout=300)
    elif words[0] == "tensorboard":  # --inspect reads the files and ends
        prepare(["vqprior", "report", "runs/x"], small_run)
        words = [str(SCRIPTS / "tensorboard"), *words[1:], "--inspect"]
        printed = subprocess.run(words, check=True, capture_output=True, text=True, timeout=120).stdout
        assert "stage1_loss/total" in printed
    elif words[0] == "pip":
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"[a-z]+", "".join(re.findall(r"\[(.*?)\]", command)))) <= set(known), command
    elif words[0] in SHELL:
        subprocess.run(command, shell=True, check=True)
    else:
        raise AssertionError(f"neither run nor listed in NOT_RUN: {command}")


def command_begins(words: list[str], beginning: str) -> bool:
    return words[: len(beginning.split())] == beginning.split()


@pytest.mark.parametrize("block", BLOCKS, ids=[block.name for block in BLOCKS])
def test_a_block_runs_as_printed(block, place, small_run, monkeypatch):
    for line in block.lines:
        for command in commands_in(line):
            run_command(command, small_run, monkeypatch)


def in_passing(document: Path) -> list[str]:
    """Commands within sentences that say more than a name."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.S)
    start = r"`((?:vqprior|torchrun|accelerate launch|python -m benchmarks)[^`]* [^`]*)`"
    return [" ".join(words.split()) for words in re.findall(start, text)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_within_sentences_parse(document, place, small_run, monkeypatch):
    for command in in_passing(document):
        words = [STANDS_FOR.get(word, word) for word in shlex.split(command)]
        if words[0] in LAUNCHERS and "-m" not in words:
            words += ["-m", "vqprior", "run", "mnist5k"]
        names_a_command_alone = words[0] == "vqprior" and len(words) == 2 and words[1] in COMMANDS
        if not names_a_command_alone:
            prepare(words, small_run)
            parse_only(command, words, monkeypatch)


def test_the_documents_hold_commands_of_every_kind():
    """Should the parser above miss whole blocks, this is where it shows."""
    lines = [command for block in BLOCKS for line in block.lines for command in commands_in(line)]
    assert len(lines) > 80  # 92 when this was written
    for name in (
        "run",
        "train-vqvae",
        "encode",
        "train-prior",
        "sample",
        "complete",
        "score",
        "evaluate",
        "report",
        "export",
    ):
        assert any(line.startswith(f"vqprior {name}") for line in lines), name
    for beginning in NOT_RUN:
        assert any(command_begins(shlex.split(line), beginning) for line in lines), (
            f"{beginning} is in no document"
        )
