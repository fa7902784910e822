"""Memory of a whole command on a CPU, by preset.

    python -m benchmarks.resident --out runs/resident

`vqprior run PRESET` in a process of its own, with two steps a stage on made-up pictures: both stages,
encoding, sampling and the evaluation at its end, all at the preset's own batches and precision. The figure is
the most that the system saw resident (Linux), libraries included. Pictures are few here: a data set adds what
it takes decoded, up to `data.memory_gb`.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.command import program
from benchmarks.gpu.steps import CLASSES, MADE_UP, config_of, make_pictures

TOO_LARGE = ("imagenet128", "ffhq256", "imagenet256")  # a step of theirs takes minutes and tens of GB
PICTURES = 320
PRIORS = ("stage2", "stage2_fine")
EVENTS = ("steps", "save_every", "eval_every")


def peak(preset: str, folder: Path, *flags: str) -> float:
    """The most memory that a short run of a preset holds, in GiB.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    config = config_of(preset)
    make_pictures(folder / "pictures", config, PICTURES)
    stages = ("stage1", *PRIORS[: config.stage1.levels])
    few = [word for stage in stages for event in EVENTS for word in (f"--{stage}.{event}", "2")]
    places = ["--data.root", str(folder / "pictures"), "--out", str(folder / "run")]
    data = [*MADE_UP, "--data.test", "0.1", "--data.crop", "0"]
    words = [*few, *data, *places, *flags]
    command = [sys.executable, "-m", "vqprior", "run", preset, *words, "--device", "cpu"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)  # else Popen holds it to be running still
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return usage.ru_maxrss / 2**20


def main() -> None:
    """Measure each preset, print and write the table."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    measured = [preset for preset in CLASSES if preset not in TOO_LARGE]
    parser.add_argument("--presets", nargs="+", choices=CLASSES, default=measured)
    parser.add_argument("--out", type=Path, default=Path("runs/resident"), help="file to write, without .md")
    options = parser.parse_args()
    lines = ["| preset | GiB resident, at most |", "|---|---|"]
    for preset in options.presets:
        with TemporaryDirectory() as folder:
            lines.append(f"| {preset} | {peak(preset, Path(folder)):.2f} |")
        print(lines[-1], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    program("resident", main)
