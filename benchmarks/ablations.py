"""One setting changed at a time: each variant of a preset is trained and measured, and the figures stand side by side.

    python -m benchmarks.ablations mnist5k --out ablations
    python -m benchmarks.ablations mnist5k --out ablations --variants preset K-32 l2 --flags --stage2.steps 600

Each variant is a run of its own in OUT, so the same command again goes on where it stopped, and `vqprior report OUT/NAME`
shows any of them. Where OUT/preset is there, a variant takes from it what is the same in both: the classifiers of real images
and, if only the prior is another one, the VQ-VAE and the codes. Prints a table of all variants in OUT and writes
OUT/ablations.json. `--flags`, which come last, are given to every run.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

VARIANTS: dict[str, list[str]] = {
    "preset": [],
    "plain": ["--stage1.codebook", "gradient", "--stage1.restart", "0", "--stage1.kmeans", "False"],  # as in the paper
    "gradient": ["--stage1.codebook", "gradient"],
    "no-restart": ["--stage1.restart", "0"],
    "l2": ["--stage1.normalize", "True"],
    "K-16": ["--stage1.K", "16"],
    "K-32": ["--stage1.K", "32"],
    "K-512": ["--stage1.K", "512"],
    "D-4": ["--stage1.D", "4"],
    "D-64": ["--stage1.D", "64"],
    "no-dropout": ["--stage2.dropout", "0"],
    "no-average": ["--stage2.average", "0"],
    "narrow": ["--stage2.channels", "32"],
    "shallow": ["--stage2.layers", "4"],
    "shifted-copies": ["--data.margin", "4", "--data.copies", "3"],
}
"""By name: the flags that differ from the preset."""
SHARED = ("evaluation/classifier-all-*", "evaluation/classifier-train-*")
"""What is the same in a run of other settings: classifiers of real images."""
SHARED_BY_PRIORS = ("stage1", "codes")
"""What is the same, besides, in a run of which only settings of stage two are others."""
PARTS = ("reconstruction", "likelihood", "ladder", "labels")


def figures(run: Path) -> dict[str, Any] | None:
    """What the table shows of a run; None of one that is not measured yet."""
    file = run / "metrics.json"
    metrics = json.loads(file.read_text()) if file.is_file() else {}
    if "labels" not in metrics:
        return None
    one, two, ladder, labels = (metrics[part] for part in ("stage1", "stage2", "ladder", "labels"))
    return {
        "MSE": one["mse"],
        "perplexity": one["perplexity"],
        "usage": one["usage"],
        "bits/code": two["bits_per_code"],
        "bits/image": two["bits_per_image"],
        "FD rec": ladder["rows"]["reconstructions"]["frechet"],
        "FD": ladder["rows"]["samples"]["frechet"],
        "right label": labels["label_accuracy"],
        "CAS": labels["cas"]["samples"],
    }


def vqprior(*arguments: object) -> None:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "vqprior", *map(str, arguments)]
    print("$", " ".join(command[2:]), flush=True)
    subprocess.run(command, check=True)


def take(preset: Path, run: Path, patterns: Iterable[str]) -> None:
    """Copy files and folders of the preset's run into another one, where they are not there yet."""
    for pattern in patterns:
        for source in preset.glob(pattern):
            target = run / source.relative_to(preset)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if source.is_dir() else shutil.copy)(source, target)


def main() -> None:
    """Train, measure, tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*VARIANTS])
    parser.add_argument("--classifier_steps", type=int, default=1000)
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    for name in options.variants:
        run, flags = options.out / name, VARIANTS[name]
        if name != "preset":
            prior_only = all(flag.startswith("--stage2.") for flag in flags[::2])
            take(options.out / "preset", run, (*SHARED, *SHARED_BY_PRIORS) if prior_only else SHARED)
        vqprior("run", options.preset, *flags, *options.flags, "--out", run)
        vqprior("evaluate", run, "--classifier_steps", options.classifier_steps, "--only", *PARTS)
    table = {name: row for name in VARIANTS if (row := figures(options.out / name))}
    (options.out / "ablations.json").write_text(json.dumps(table, indent=2))
    columns = [*next(iter(table.values()))]
    print(f"{'':<16}" + "".join(f"{column:>12}" for column in columns))
    for name, row in table.items():
        print(f"{name:<16}" + "".join(f"{row[column]:>12.4g}" for column in columns))


if __name__ == "__main__":
    main()
