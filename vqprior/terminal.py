"""What a command says first and last: what it reads and where things go, with which networks and on what;
then what to type next. What it made, with its figures, it has said itself before that."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from vqprior.configs.schema import Precision
from vqprior.runtime import checkpoint
from vqprior.runtime.codes import Level, in_words
from vqprior.runtime.devices import name_of
from vqprior.runtime.lineage import encodes_as
from vqprior.runtime.processes import device_of_process, on_main, say, share_of_process
from vqprior.runtime.run_dir import RunDir

from .onward import Words, next_line


@contextmanager
def told(
    command: str,
    reads: object,
    writes: object,
    *,
    run: RunDir | None = None,
    precision: Precision | None = None,
    after: Callable[[], Words] | None = None,
) -> Iterator[None]:
    """A command between its first lines and its last; one that fails says no last one.

    Args:
        reads, writes: paths, or in words.
        run: whose networks are named, as far as they are trained.
        precision: None where no network computes.
        after: gives what to type next, when the command is done.
    """
    networks = on_main(_networks, run) if run else []
    lines = [f"{reads} -> {writes}", *networks, _on_what(precision)]
    say(f"{command}: " + f"\n{' ' * len(command)}  ".join(lines))
    yield
    if after:
        say(next_line(*on_main(after)))


def _networks(run: RunDir) -> list[str]:
    """The checkpoints that are used of a run's stages, with their sizes, and the codes: a line, or none."""
    folders = [run.stage2_of(level) for level in sorted(run.begun_priors())]
    priors = {folder: checkpoint.best_of(checkpoint.readable(folder)) for folder in folders}
    codes = next((saved.meta.get("codes") for saved in priors.values() if saved), None)
    vqvaes = checkpoint.readable(run.stage1)
    of_codes = (saved for saved in vqvaes if not codes or encodes_as(saved)["vqvae"] == codes["vqvae"])
    stages = {run.stage1: checkpoint.best_of(of_codes), **priors}
    used = {folder.name: saved for folder, saved in stages.items() if saved}
    parts = [f"{name} of step {saved.step:,} ({saved.megabytes:.1f} MB)" for name, saved in used.items()]
    if codes:
        parts.append(in_words(Level(**level) for level in codes["levels"]))
    return [", ".join(parts)] if parts else []


def _on_what(precision: Precision | None) -> str:
    """Device, precision and processes; without networks all is done on the CPU."""
    device, processes = device_of_process(), share_of_process().processes
    together = "1 process" if processes == 1 else f"{processes} processes"
    if precision is None:
        return f"on cpu, {together}"
    named = name_of(device)
    where = f"on {device}" if named == device.type else f"on {device} ({named})"
    threads = torch.get_num_threads()
    of_threads = f" of {threads} {'thread' if threads == 1 else 'threads'}" if device.type == "cpu" else ""
    return f"{where}, {'fp32' if precision == 'no' else precision}, {together}{of_threads}"
