"""What the first person with a GPU should measure: speed, memory, waits, and whether the numbers are right.

    python -m benchmarks.gpu                          all of it, in under 10 minutes: runs/gpu.json, .md
    python -m benchmarks.gpu --presets mnist --quick  the same in miniature, on any machine
    python -m benchmarks.gpu --memory                 memory of training, counted: no GPU needed
    python -m benchmarks.gpu --operations             operations and waits of a step, counted: no GPU needed
    python -m benchmarks.gpu --work                   arithmetic of training, counted: no GPU needed

Training: the real loops on made-up data, both stages of each preset, at the preset's batch or, where that
does not fit, at a half of it, a quarter, and so on; in fp32, TF32, bf16, and bf16 as a recorded step
(`--cuda_graph`). The ways take turns, round after round; the figures are medians over rounds. Of each way
also: the peak of the allocated memory; a step of 4 images, which is the host's time to launch it all; and
from a few steps apart, which the profiler slows, the time that kernels run, their number, and how often
torch says that the host waits (`set_sync_debug_mode`; waiting for an event is not among them). Where
kernels run for less than the step takes, launches bound the step, not arithmetic.

Sampling: priors of random weights, images a second, ms a code, and all codes in multiples of one full
forward. Encoding: pictures on the CPU to codes on the CPU. Checks: what should be equal to the CPU, and how
far it is."""

import argparse
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.checks import codes_equal_the_cpus, self_checks, ways_agree
from benchmarks.gpu.device import MIB, attempted, is_cuda
from benchmarks.gpu.report import as_markdown
from benchmarks.gpu.sampling import encoding, sampling
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.steps import CLASSES, PRESETS
from benchmarks.gpu.training import training
from vqprior.runtime import devices
from vqprior.runtime.processes import device_of_process

ROOT = Path(__file__).parents[2]
STAGES = ("stage1", "stage2")


def output_of(*command: str) -> str | None:
    """What a program prints; None where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def about() -> dict[str, Any]:
    """Device, driver, versions and the commit."""
    device = device_of_process()
    found: dict[str, Any] = {
        "device": devices.name_of(device),
        "kind": str(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if is_cuda() else None,
        "driver": output_of("nvidia-smi", "--query-gpu=driver_version,power.limit", "--format=csv,noheader"),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "commit": output_of("git", "rev-parse", "HEAD"),
        "changed": bool(output_of("git", "status", "--porcelain")),
    }
    if is_cuda():
        properties = torch.cuda.get_device_properties(device)
        found["memory_mib"] = properties.total_memory / MIB
        found["capability"] = f"{properties.major}.{properties.minor}"
    return found


def measure(presets: tuple[str, ...], settings: Settings) -> Iterator[dict[str, Any]]:
    """Every figure; what failed is in words where its figures would be. All that there is so far, after each
    part."""
    found: dict[str, Any] = {"about": about(), "training": [], "sampling": [], "encoding": []}
    found["checks"] = attempted(self_checks)
    found["ways"] = attempted(lambda: ways_agree(settings.models))
    found["codes"] = attempted(lambda: {"rows": codes_equal_the_cpus(settings.compared)})
    yield found
    for preset in presets:
        found["encoding"].append({"preset": preset} | attempted(lambda p=preset: encoding(p, settings)))
        for batch in settings.batches:
            row = attempted(lambda p=preset, b=batch: sampling(p, b, settings))
            found["sampling"].append({"preset": preset, "batch": batch} | row)
        yield found
    for preset, stage in product(presets, STAGES):
        before = found["training"]
        with tempfile.TemporaryDirectory() as folder:
            for rows in training(preset, stage, settings, Path(folder)):
                yield found | {"training": [*before, *rows]}
        found["training"] = [*before, *rows]


def write(found: dict[str, Any] | list, markdown: str, out: Path) -> None:
    """Write OUT.json and OUT.md."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(found, indent=2))
    out.with_suffix(".md").write_text(markdown + "\n")


def written(found: dict[str, Any] | list, markdown: str, out: Path) -> None:
    """Write OUT.json and OUT.md, and print the latter."""
    write(found, markdown, out)
    print(markdown)


def main(argv: list[str] | None = None) -> None:
    """Measure or count, print and write."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__, formatter_class=raw)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/gpu"), help="files to write, without their ending"
    )
    parser.add_argument("--presets", nargs="+", choices=CLASSES, help="some are counted alone")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps or auto")
    parser.add_argument("--minutes", type=float, default=8, help="then only what has no figure is measured")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all of it runs")
    parser.add_argument("--memory", action="store_true", help="count memory instead")
    parser.add_argument("--operations", action="store_true", help="count operations and waits instead")
    parser.add_argument("--work", action="store_true", help="count arithmetic instead")
    options = parser.parse_args(argv)
    all_of_them = options.memory or options.work
    presets = tuple(options.presets or (CLASSES if all_of_them else PRESETS))
    if not all_of_them and (others := [preset for preset in presets if preset not in PRESETS]):
        parser.error(
            f"{', '.join(others)}: counted by --memory and --work alone; measured are {', '.join(PRESETS)}"
        )
    if options.memory:
        from benchmarks.gpu import memory

        rows = memory.table(presets)
        return written(rows, memory.as_markdown(rows), options.out)
    if options.work:
        from benchmarks.gpu import work

        rows = work.table(presets)
        return written(rows, work.as_markdown(rows), options.out)
    if options.operations:
        from benchmarks.gpu import operations

        rows = operations.table(presets)
        return written(rows, operations.as_markdown(rows), options.out)
    with devices.choose(options.device):
        for found in measure(presets, Settings(options.quick, options.minutes)):
            write(found, as_markdown(found), options.out)  # whoever has no more time has what was measured
    print(options.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
