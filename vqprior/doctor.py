"""`vqprior doctor`: versions, devices, what they can do, and what is missing, on one screen."""

import os
import platform
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vqprior.configs.errors import UserError
from vqprior.runtime.run_dir import git_commit, package_version

if TYPE_CHECKING:
    import torch

GB = 10**9
EXTRAS = {
    "app": "vqprior app",
    "demo": "the digits of mnist5k",
    "data": "Parquet files, hub data sets, CelebA",
    "eval": "FID and other features",
    "heic": "pictures of iPhones",
    "hub": "Generator.from_pretrained of a hub",
    "mlflow": "--tracker mlflow",
    "onnx": "vqprior export --onnx True",
    "report": "vqprior report",
    "wandb": "--tracker wandb",
}
"""What each extra is for; that of developers is left out."""


class Requirement(NamedTuple):
    """A package that vqprior needs, or an extra of it does."""

    name: str
    least: str  # version
    extra: str  # "" where all of vqprior needs it

    def installed(self) -> str | None:
        """The version that is there, None where there is none."""
        try:
            return metadata.version(self.name)
        except metadata.PackageNotFoundError:
            return None

    def problem(self) -> str | None:
        """What is wrong with it, None where nothing is."""
        version = self.installed()
        if version is None:
            return f"{self.name} is missing"
        old = _numbers(version) < _numbers(self.least)
        return f"{self.name} is {version}, older than {self.least}" if old else None


def show(device: str) -> None:
    """Print what vqprior finds on this machine, for the word that --device gave.

    Raises:
        UserError: a package is missing or too old without which nothing works, or there is no such device.
    """
    needed = requirements("vqprior")
    problems = [problem for need in needed if not need.extra and (problem := need.problem())]
    for title, lines in (
        ("vqprior", _about_itself()),
        ("packages", _packages(needed)),
        ("optional", _optional(needed)),
        ("devices", [] if problems else _devices(device)),
        ("disk", _disk()),
    ):
        for line in lines:
            print(f"{title:<10}{line}", flush=True)
            title = ""
    if problems:
        raise UserError(f"{'; '.join(problems)}. To fix it, in a clone of vqprior: pip install -e .")


def requirements(package: str) -> list[Requirement]:
    """What an installed package says that it needs; nothing where it is not installed."""
    try:
        lines = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return []
    return [need for line in lines if (need := _requirement(line)) and need.name != package]


def _requirement(line: str) -> Requirement | None:
    """`mlxtend>=0.23; extra == "demo"` as name, least version and extra."""
    found = re.match(r"([\w.-]+)(?:\[[\w,]*\])?\s*(?:>=\s*([\w.]+))?", line)
    extra = re.search(r"""extra\s*==\s*["'](\w+)["']""", line)
    return found and Requirement(found[1], found[2] or "0", extra[1] if extra else "")


def _numbers(version: str) -> tuple[int, ...]:
    """2.14.1+cpu as (2, 14, 1)."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def _about_itself() -> Iterator[str]:
    commit = git_commit()
    yield f"{package_version()}{f', commit {commit}' if commit else ''}, in {Path(__file__).parent}"
    yield f"Python {platform.python_version()} ({sys.executable}), {platform.system()} {platform.machine()}"


def _packages(needed: list[Requirement]) -> Iterator[str]:
    """The packages that all of vqprior needs, with their versions."""
    found = [f"{need.name} {need.installed() or 'MISSING'}" for need in needed if not need.extra]
    if not found:
        yield "unknown: vqprior is not installed, and runs from a clone; pip install -e . there"
    for start in range(0, len(found), 4):
        yield ", ".join(found[start : start + 4])


def _optional(needed: list[Requirement]) -> Iterator[str]:
    """Each extra: there, or how to get it."""
    of_extra: dict[str, list[str | None]] = defaultdict(list)
    for need in needed:
        of_extra[need.extra].append(need.problem())
    for extra, purpose in EXTRAS.items():
        if extra not in of_extra:
            continue
        problems = [problem for problem in of_extra[extra] if problem]
        state = f"{'; '.join(problems)}: pip install 'vqprior[{extra}]'" if problems else "installed"
        yield f"{extra:<7} {purpose}: {state}"


def _devices(word: str) -> Iterator[str]:
    """The processor, each GPU, and which of them computes; raises as `devices.find` does."""
    import torch

    from vqprior.runtime import devices

    yield _cpu()
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        yield _gpu(torch.device("cuda", index))
    if torch.backends.mps.is_available():
        yield f"mps      Apple's GPU: {_precision(torch.device('mps'))}"
    chosen = devices.find(word)
    yield f"--device {word} takes {chosen}, on which --precision auto is {_precision(chosen)}"


def _cpu() -> str:
    import torch

    cores, threads = os.cpu_count(), torch.get_num_threads()
    memory = f", {_memory() / GB:.1f} GB of memory" if _memory() else ""
    of_torch = f"{threads} {'thread' if threads == 1 else 'threads'}"
    return f"cpu      {cores} cores, {of_torch}{memory}: {_precision(torch.device('cpu'))}"


def _gpu(device: "torch.device") -> str:
    import torch

    about = torch.cuda.get_device_properties(device)
    capability = f"capability {about.major}.{about.minor}"
    memory = f"{about.total_memory / GB:.1f} GB"
    return f"{device}   {about.name}, {memory}, {capability}: {_precision(device)}"


def _precision(device: "torch.device") -> str:
    """What `--precision auto` takes on a device, and why."""
    from vqprior.runtime.launch import computes_bf16

    return "bf16 (it has instructions for it)" if computes_bf16(device) else "fp32 (no instructions for bf16)"


def _memory() -> int:
    """Bytes of memory of this machine; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _disk() -> Iterator[str]:
    yield f"{shutil.disk_usage('.').free / GB:.1f} GB free in {Path.cwd()}"
