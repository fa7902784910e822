"""Pictures unlike those of training: how well `vqprior score` tells them from others, beside the error of the
reconstruction, which takes no prior.

    python -m benchmarks.score mnist --left_out 0 --out score --seeds 0 1 2 --flags --data.root FOLDER

A run of the preset is trained for each seed without the class `left_out`; then two sets are told from test
pictures of the classes that it knows: test pictures of that class, and the known ones themselves with a
square of another of them pasted in, a quarter of the height and width, at a place where it shows. AUROC is
the share of pairs (known, unlike) that a figure puts in the right order, 0.5 by chance; for the squares also
the share of pairs of pixels (outside, inside). The same command again goes on where it stopped. Prints a
table, writes OUT/score.json, and OUT/seedS/examples/unusual.png of a few pictures. `--flags`, which come
last, are given to every run.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.command import program, vqprior
from vqprior import Generator, configs
from vqprior.configs.errors import UserError
from vqprior.runtime.data import DataSet, load
from vqprior.runtime.data.source import SPLITS
from vqprior.runtime.files import read_json, write_folder, write_json
from vqprior.runtime.randomness import some_of
from vqprior.sampling.score import heat

SHOWS = 0.05  # mean squared difference, at least, of what is pasted and what was there
EXAMPLES = 4  # pictures of each kind
Figures = dict[str, dict[str, float]]
"""AUROC by what is told from the known pictures, and by figure."""


def save(folder: Path, number: int, pixels: np.ndarray) -> None:
    """Write a picture uint8 [H, W, C]."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    picture.save(folder / f"{number:06d}.png", compress_level=1)


def write_known(folder: Path, data: DataSet, left_out: int) -> None:
    """The pictures of all classes but one: a folder for each split, with one for each class."""
    for name in SPLITS:
        split = data.split(name)
        for index in (split.labels != left_out).nonzero()[:, 0].tolist():
            pixels = split.canvas(torch.tensor([index]))[0].permute(1, 2, 0).numpy()
            save(folder / name / data.label_names[split.numbers[index]], index, pixels)


def pasted(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, H, W, C], each with a square of the next one in another place, and where it is, bool [N, H,
    W]."""
    rng, (count, height, width) = np.random.default_rng(0), images.shape[:3]
    rows, columns = height // 4, width // 4
    made, inside = images.copy(), np.zeros(images.shape[:3], dtype=bool)
    for number in range(count):
        for _ in range(100):
            top, there = rng.integers(0, height - rows + 1, 2)
            left, here = rng.integers(0, width - columns + 1, 2)
            square = images[(number + 1) % count, there : there + rows, here : here + columns]
            at = (number, slice(top, top + rows), slice(left, left + columns))
            if np.square((square / 255.0) - (images[at] / 255.0)).mean() > SHOWS:
                break
        made[at], inside[at] = square, True
    return made, inside


def auroc(known: np.ndarray, unlike: np.ndarray) -> float:
    """Share of pairs in which what is unlike has the larger figure; ties are half."""
    known = np.sort(known.ravel())
    below = np.searchsorted(known, unlike.ravel(), "left") + np.searchsorted(known, unlike.ravel(), "right")
    return float(below.mean() / (2 * len(known)))


def measured(run: Path, sets: dict[str, np.ndarray], inside: np.ndarray, quantile: float) -> Figures:
    """The table of a run."""
    generator = Generator.from_run(run)
    levels = generator.tokenizer.levels
    usual, figures, maps = generator.usual(), {}, {}
    means = torch.from_numpy(usual.bits.mean(0, keepdims=True))
    for name, images in sets.items():
        found = generator.score(images, usual, quantile=quantile)
        error = np.square((images - generator.reconstruct(images).astype(np.float64)) / 255).mean(3)
        figures[name] = {
            "bits": found.bits,
            "difference to restorations": found.difference,
            "reconstruction error": found.reconstruction,
        }
        if generator.networks.null_label is not None:
            figures[name]["bits, no class told"] = -generator.log2_prob(images)
        maps[name] = {
            "bits": found.heat,
            "bits beyond the place's mean": found.heat - heat(means, levels, images.shape[1:3]).numpy(),
            "difference to restorations": found.differences,
            "reconstruction error": error,
        }
    known, of_pixels = figures.pop("known"), maps["pasted"]
    table = {
        name: {figure: auroc(known[figure], values) for figure, values in unlike.items()}
        for name, unlike in figures.items()
    }
    pixels = {figure: auroc(values[~inside], values[inside]) for figure, values in of_pixels.items()}
    return table | {"pasted, pixels": pixels}


def sets_of(data: DataSet, left_out: int, count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Test pictures by what they are, [N, H, W, C] each, and where squares are pasted in, bool [N, H, W]."""

    def images(which: torch.Tensor) -> np.ndarray:
        members = which.nonzero()[:, 0]
        return data.test.images(members[some_of(len(members), count)]).permute(0, 2, 3, 1).numpy()

    known = images(data.test.labels != left_out)
    with_squares, inside = pasted(known)
    return {
        "known": known,
        "left out": images(data.test.labels == left_out),
        "pasted": with_squares,
    }, inside


def train(options: argparse.Namespace, pictures: Path, seed: int) -> Path:
    """The run of a seed, trained."""
    run = options.out / f"seed{seed}"
    roots = [flag for name in SPLITS for flag in (f"--data.{name}_root", pictures / name)]
    flags = [*options.flags, "--data.source", "folder", *roots, "--data.crop", 0, "--seed", seed]
    for step in ("train-vqvae", "encode", "train-prior"):
        vqprior(step, options.preset, *flags, "--out", run)
    return run


def show(of_seeds: dict[str, Figures]) -> None:
    """The table: a row a figure, a column a seed."""
    for name, figures in next(iter(of_seeds.values())).items():
        print(f"{name:<30}" + "".join(f"{'seed ' + seed:>10}" for seed in of_seeds))
        for figure in figures:
            values = (of_seed[name][figure] for of_seed in of_seeds.values())
            print(f"  {figure:<28}" + "".join(f"{value:>10.3f}" for value in values))


def main() -> None:
    """Train, score, tabulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset")
    parser.add_argument("--left_out", required=True, help="name of the class")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=500, help="of each set, at most")
    parser.add_argument("--quantile", type=float, default=0.9, help="as for vqprior score")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    data = load(configs.parse(configs.find_preset(options.preset), options.flags).data)
    if options.left_out not in data.label_names:
        raise UserError(f"there is no class {options.left_out!r}; there are {', '.join(data.label_names)}")
    left_out = data.label_names.index(options.left_out)
    pictures, examples = options.out / "pictures", options.out / "examples"
    if not pictures.exists():
        write_folder(pictures, lambda folder: write_known(folder, data, left_out))
    sets, inside = sets_of(data, left_out, options.images)
    for name, images in sets.items():
        for number, pixels in enumerate(images[-EXAMPLES:]):
            save(examples / name, number, pixels)
    protocol = {"left_out": options.left_out, "images": options.images, "quantile": options.quantile}
    kept = read_json(options.out / "score.json") or {}
    done = kept["seeds"] if kept.get("protocol") == protocol else {}
    for seed in options.seeds:
        run = train(options, pictures, seed)
        shown = ["--quantile", options.quantile, "--out", run / "examples"]
        vqprior("score", run, "--pictures", examples, *shown)
        if str(seed) not in done:
            done[str(seed)] = measured(run, sets, inside, options.quantile)
            write_json(options.out / "score.json", {"protocol": protocol, "seeds": done})
    show(done)


if __name__ == "__main__":
    program("score", main)
