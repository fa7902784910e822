"""One setting changed at a time: each variant of a preset is trained and measured, and the figures stand side
by side.

    python -m benchmarks.ablations mnist5k --out ablations
    python -m benchmarks.ablations mnist5k --out ablations --variants preset K-32 l2 --flags --stage2.steps
    600

Each variant is a run of its own in OUT, so the same command again goes on where it stopped, and `vqprior
report OUT/NAME` shows any of them. Where OUT/preset is there, a variant takes from it what is the same in
both: the classifiers of real images and, if only settings of the prior differ, the VQ-VAE and the codes.
Prints a table of all variants in OUT that were measured with the same settings, and writes
OUT/ablations.json and OUT/reconstructions.png: a row of test pictures, and a row of what each variant makes
of them. The data need classes. `--flags`, which come last, are given to every run.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from benchmarks.command import program, share_classifiers, vqprior
from vqprior import configs
from vqprior.configs import Config
from vqprior.configs.errors import UserError
from vqprior.evaluation.classifier import RECIPE
from vqprior.evaluation.plots import scalars
from vqprior.runtime import data
from vqprior.runtime.files import write_folder, write_json
from vqprior.runtime.launch import settled
from vqprior.runtime.pictures import grid, save_png
from vqprior.runtime.processes import device_of_process
from vqprior.runtime.run_dir import RunDir
from vqprior.sampling.tokenizer import Tokenizer

VARIANTS: dict[str, list[str]] = {
    "preset": [],
    # As in the paper
    "plain": "--stage1.quantizer gradient --stage1.codebook.restart 0 --stage1.codebook.kmeans False".split(),
    "gradient": ["--stage1.quantizer", "gradient"],
    "no-restart": ["--stage1.codebook.restart", "0"],
    "l2": ["--stage1.codebook.normalize", "True"],
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
    # Quantizers of 512 codes beside the EMA codebook, each with as many bits an image
    "rotation": ["--stage1.gradient", "rotation"],
    "simvq": ["--stage1.quantizer", "simvq"],
    "fsq": "--stage1.quantizer fsq --stage1.fsq.levels 8 8 8 --stage1.K 512 --stage1.D 3".split(),
    "lfq": "--stage1.quantizer lfq --stage1.K 512 --stage1.D 9".split(),
    "residual": "--stage1.factor 8 --stage1.codes_per_position 4 --stage1.residual True".split(),
    # Terms of the loss beside the squared error
    "perceptual": ["--stage1.perceptual", "1"],
    "perceptual-0.3": ["--stage1.perceptual", "0.3"],
    "perceptual-0.1": ["--stage1.perceptual", "0.1"],
    "adversary": "--stage1.perceptual 1 --stage1.adversarial 0.1".split(),
}
"""By name: the flags that differ from the preset."""
PARTS = ("reconstruction", "likelihood", "ladder", "labels")


def figures(run: Path, config: Config, classifier_steps: int) -> dict[str, Any] | None:
    """What the table shows of a run; None of one that is not measured yet, or was with other settings."""
    file = run / "metrics.json"
    metrics = json.loads(file.read_text()) if file.is_file() else {}
    parts = metrics.get("protocol", {}).get("parts", {})
    if not {"stage1", "stage2", "ladder", "labels"} <= parts.keys():
        return None
    same = replace(RunDir(run).config(), out=None) == replace(config, out=None)
    classifiers = {"recipe": RECIPE, "classifier_steps": classifier_steps}
    if not same or any(not classifiers.items() <= parts[name].items() for name in ("ladder", "labels")):
        return None
    one, two, ladder, labels = (metrics[part] for part in ("stage1", "stage2", "ladder", "labels"))
    return {
        "ms/step": milliseconds(run, config.stage1.batch_size),
        "MSE": one["mse"],
        "PSNR": one["psnr"],
        "SSIM": one["ssim"],
        "perplexity": [level["perplexity"] for level in one.get("levels", [one])],
        "usage": [level["usage"] for level in one.get("levels", [one])],
        "bits/code": two.get("bits_per_code"),  # which several levels have each
        "bits/image": two["bits_per_image"],
        "FD rec": ladder["rows"]["reconstructions"]["frechet"],
        "FD": ladder["rows"]["samples"]["frechet"],
        "right label": labels["label_accuracy"],
        "CAS": labels["cas"]["samples"],
    }


def milliseconds(run: Path, batch: int) -> float | None:
    """Of a step of stage one, the median over its intervals; None where it is another run's."""
    speed = scalars(RunDir(run), ".").get("stage1_speed/images_per_second")
    return 1000 * batch / float(np.median([*speed.values()])) if speed else None


def cell(value: float | list[float] | None) -> str:
    """A figure, or those of several levels."""
    values = value if isinstance(value, list) else [value]
    return "/".join("-" if one is None else f"{one:.4g}" for one in values)


def reconstructions(runs: list[Path], columns: int = 12) -> torch.Tensor:
    """Test pictures of the first run's data, evenly spaced, and below them what each run makes of them: one
    picture [H, W, 3] uint8."""
    test = data.load(RunDir(runs[0]).config().data, run=runs[0]).test
    images = test.images(torch.arange(columns) * (len(test) // columns))
    shown = rearrange(images, "n c h w -> n h w c").numpy()
    rows = [shown, *(Tokenizer.from_run(run).reconstruct(shown) for run in runs)]
    return grid(rearrange(torch.from_numpy(np.concatenate(rows)), "n h w c -> n c h w"), columns)


def measured(out: Path, given: dict[str, Config], classifier_steps: int) -> dict[str, dict[str, Any]]:
    """The figures of all variants that are measured with these settings, by an earlier call too."""
    return {
        name: row for name, config in given.items() if (row := figures(out / name, config, classifier_steps))
    }


def settings(preset: str, flags: Sequence[str]) -> Config:
    """What `vqprior run PRESET FLAGS` begins a run with."""
    return settled(configs.parse(configs.find_preset(preset), flags), device_of_process())


def of_stage_one(config: Config) -> tuple[object, ...]:
    """The settings that the VQ-VAE and the codes are a function of."""
    return (
        config.data,
        config.stage1,
        config.seed,
        config.precision,
        config.channels_last,
        config.deterministic,
    )


def share(preset: Path, run: Path, config: Config) -> None:
    """Copy from the preset's run what is the same in a variant's: classifiers of real images; the VQ-VAE with
    its codes."""
    share_classifiers(preset, run)
    done = (preset / "codes" / "header.json").is_file()
    if done and of_stage_one(RunDir(preset).config()) == of_stage_one(config):
        for name in ("stage1", "codes"):
            if not (run / name).exists():
                run.mkdir(parents=True, exist_ok=True)
                write_folder(run / name, partial(shutil.copytree, preset / name, dirs_exist_ok=True))


def main() -> None:
    """Train, measure, tabulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*VARIANTS])
    parser.add_argument("--classifier_steps", type=int, default=500)
    parser.add_argument("--images", type=int, default=10000, help="for each row of the evaluation")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    asked = [name for name in VARIANTS if name in options.variants or (options.out / name).is_dir()]
    given = {name: settings(options.preset, [*VARIANTS[name], *options.flags]) for name in asked}
    plain = settings(options.preset, options.flags)
    if not plain.data.labels:
        raise UserError("the table has shares of right labels, and this preset has data.labels False")
    for name in options.variants:
        run, config = options.out / name, given[name]
        if name != "preset" and config == plain:
            print(f"{name}: the preset's own setting")
            continue
        if name != "preset":
            share(options.out / "preset", run, config)
        vqprior("run", options.preset, *VARIANTS[name], *options.flags, "--out", run)
        how = ("--classifier_steps", options.classifier_steps, "--images", options.images)
        vqprior("evaluate", run, *how, "--only", *PARTS)
        write_json(options.out / "ablations.json", measured(options.out, given, options.classifier_steps))
    table = measured(options.out, given, options.classifier_steps)
    save_png(options.out / "reconstructions.png", reconstructions([options.out / name for name in table]))
    columns = [*next(iter(table.values()), ())]
    print(f"{'':<16}" + "".join(f"{column:>12}" for column in columns))
    for name, row in table.items():
        print(f"{name:<16}" + "".join(f"{cell(row[column]):>12}" for column in columns))


if __name__ == "__main__":
    program("ablations", main)
