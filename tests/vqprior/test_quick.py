"""A command imports what it needs and no more, so that it answers at once; and it runs in any thread."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY
from tests.launch import ROOT, environment
from vqprior.cli import main
from vqprior.runtime import interrupt, lock

MODEL = ROOT / "models" / "mnist"
TELL = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
LIBRARIES = """
import accelerate, einops, numpy, PIL.Image, safetensors.torch, torch, tqdm
from vqprior import configs; configs.parse(None, [])  # and what tyro imports when it parses
"""


def modules_after(code: str, *arguments: object) -> set[str]:
    """The modules that a fresh Python has imported after some code."""
    command = [sys.executable, "-c", code + TELL, *(str(argument) for argument in arguments)]
    done = subprocess.run(command, env=environment(None), capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def modules_of(code: int, *arguments: object) -> set[str]:
    """The modules that a command has imported when it ends with this exit code."""
    run = f"import sys; from vqprior.cli import main; assert main(sys.argv[1:]) == {code}"
    return modules_after(run, *arguments)


def libraries(modules: set[str]) -> set[str]:
    """The top-level names of modules that are neither Python's own nor vqprior's."""
    tops = {module.partition(".")[0] for module in modules}
    return {top for top in tops - set(sys.stdlib_module_names) if not top.startswith(("_", "vqprior"))}


ANSWERED_AT_ONCE = {
    "help": (0, ["--help"]),
    "version": (0, ["--version"]),
    "help of a command": (0, ["sample", MODEL, "--help"]),
    "help of another command": (0, ["run", "mnist5k", "--help"]),
    "list of runs": (0, ["ls", MODEL.parent]),
    "no such command": (2, ["trian-vqvae", "mnist5k"]),
    "no such preset": (2, ["run", "mnist6k"]),
    "no run yet": (2, ["sample", "mnist5k"]),
    "nothing to encode yet": (2, ["encode", "mnist5k"]),
    "flag with a typo": (2, ["sample", MODEL, "--imges", "3"]),
    "word for a number": (2, ["run", "mnist5k", "--stage1.K", "many"]),
    "number out of its range": (2, ["sample", MODEL, "--images", "0"]),
}


@pytest.mark.parametrize("what", ANSWERED_AT_ONCE)
def test_help_and_refusals_wait_for_no_large_library(what):
    code, arguments = ANSWERED_AT_ONCE[what]
    modules = modules_of(code, *arguments)
    assert not libraries(modules) & {"torch", "numpy", "PIL", "accelerate", "einops", "safetensors", "tqdm"}
    assert "vqprior.pipeline" not in modules


@pytest.mark.skipif(
    not hasattr(torch.cpu, "get_capabilities"), reason="a torch that loads its compiler by itself"
)
def test_sample_imports_what_it_needs_and_no_more(tmp_path):
    """No library but those that draw and write an image, and nothing large that torch itself leaves out."""
    modules = modules_of(0, "sample", MODEL, "--images", 1, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "grid.png").is_file()
    bare = modules_after(LIBRARIES)
    assert not libraries(modules) - libraries(bare)
    assert not (modules - bare) & {"torch._dynamo", "torch._inductor", "torch.distributed.fsdp"}
    others = {"train", "encode", "evaluate", "evaluation", "complete", "report", "export", "check"}
    assert not [m for m in modules if m.startswith("vqprior.") and others & set(m.split(".")[1:])]


def run_in_thread(*arguments: object) -> int:
    """The exit code of a command in a thread of this process, such as the worker of a page."""
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main([str(argument) for argument in arguments])))
    thread.start()
    thread.join()
    lock.release_all()
    return codes[0]


def test_commands_run_in_a_thread(tmp_path, pictures, capsys):
    before = [signal.getsignal(number) for number in interrupt.HANDLED]
    out = tmp_path / "run"
    assert run_in_thread("run", "folder", *TINY, "--data.root", pictures, "--out", out) == 0
    assert run_in_thread("sample", out, "--images", 2, "--seed", 3, "--out", tmp_path / "thread") == 0
    assert run_in_thread("sample", out, "--images", "many") == 2
    assert [signal.getsignal(number) for number in interrupt.HANDLED] == before
    assert "many" in capsys.readouterr().err
    assert main(["sample", str(out), "--images", "2", "--seed", "3", "--out", str(tmp_path / "main")]) == 0
    assert content(tmp_path / "thread") == content(tmp_path / "main")


def content(folder: Path) -> list[bytes]:
    """The images of a folder of samples."""
    return [path.read_bytes() for path in sorted((folder / "images").iterdir())]


def test_a_thread_takes_no_signal_from_the_main_one():
    before = signal.getsignal(signal.SIGTERM)
    with interrupt.heeded():
        signal.raise_signal(signal.SIGTERM)
        thread = threading.Thread(target=lambda: interrupt.heeded().__enter__())
        thread.start()
        thread.join()
        assert interrupt.requested() == signal.SIGTERM
    assert interrupt.requested() == 0 and signal.getsignal(signal.SIGTERM) == before


def test_a_signal_to_one_command_does_not_stop_the_next(finished_run, tmp_path):
    with interrupt.heeded():
        signal.raise_signal(signal.SIGTERM)
    draw = ["sample", finished_run, "--images", 6, "--batch_size", 2, "--out", tmp_path / "out"]
    assert run_in_thread(*draw) == 0
