"""Which prior when: all kinds on the same codes, for the same processor time.

    vqprior run mnist --data.root FOLDER --out runs/mnist
    python -m benchmarks.priors runs/mnist --seconds 480 --out compared
    python -m benchmarks.priors runs/mnist --seconds 480 --out compared --seeds 0 1 2 --evaluate

Each kind (`KINDS`: the settings that are tried) is trained with each of the learning rates, then, with the
other seeds, with the best of them by held-out bits. Every rate gets all of the time: a search with a part of
it favours rates that fall faster at first and end higher (docs/priors.md). The steps that the time allows are
counted on a few steps of that very prior beforehand, on one thread. A run of its own for each stands in OUT;
the same command again goes on, and `vqprior report OUT/KIND-RATE-SEED` shows any of them. `--evaluate`
measures samples, too, those of the first seed with the guidance that gives the least distance. `--rates
KIND=RATE` (or `KIND=RATE,RATE`) says which rates are tried. Of a run with levels priors of the coarsest are
compared; the finer ones are the run's own. Prints a table and writes OUT/priors.json.
"""

import argparse
import json
import math
import shutil
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.command import program, share_classifiers, vqprior
from vqprior import configs
from vqprior.configs import Config
from vqprior.configs.errors import UserError, command_line
from vqprior.runtime import checkpoint
from vqprior.runtime.code_maps import CodeMaps
from vqprior.runtime.files import write_file, write_folder, write_json
from vqprior.runtime.launch import autocast, settled
from vqprior.runtime.optimizer import adamw
from vqprior.runtime.run_dir import RunDir
from vqprior.sampling.choice import Sampling
from vqprior.sampling.networks import Networks
from vqprior.stage2_prior.measure import bits_per_code
from vqprior.stage2_prior.priors import PRIORS, build, load_prior

KINDS: dict[str, list[str]] = {
    "gated_pixelcnn": [],
    "pixelsnail": ["--stage2.layers", "8", "--stage2.pixelsnail.blocks", "2"],
    "transformer": ["--stage2.layers", "6", "--stage2.channels", "128"],
}
"""By name: the flags besides those of the run."""
LEARNING_RATES = {kind: [1e-3, 3e-3] for kind in PRIORS}
TRIED = 20  # steps that the time of one is taken from, after as many others
GUIDANCES = (1.0, 1.5, 2.0, 3.0)
GUIDED = 2000  # samples that tell which of them is best
MAPS = 64  # drawn at once, to time


def seconds_per_step(config: Config, run: RunDir) -> float:
    """Processor seconds of a training step of the configured prior on the codes of a run."""
    maps, settings = CodeMaps(run.codes, verify=False), config.stage2
    split, classes = maps.split("train").down_to(0), len(maps.header.label_names)
    prior = build(settings, maps.header.levels[:1], classes)
    prior.to(memory_format=torch.channels_last if config.channels_last else torch.contiguous_format)
    optimizer = adamw(prior, weight_decay=settings.weight_decay)

    def step(index: int) -> None:
        at = torch.arange(index * settings.batch_size, (index + 1) * settings.batch_size) % len(split)
        (codes,), labels = split.codes(at), split.labels[at] if classes else None
        with autocast(torch.device("cpu"), config.precision):
            dropped = prior.dropout(prior.dropout_keys(config.seed, at))
            loss = F.cross_entropy(prior(codes, labels, dropped=dropped), codes)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for index in range(TRIED):
        step(index)
    began = time.process_time()
    for index in range(TRIED):
        step(index)
    return (time.process_time() - began) / TRIED


def prepared(source: RunDir, out: Path, flags: list[str]) -> Config:
    """A run with the stage one, the codes and the finer priors of another; its settings with these flags."""
    base = replace(source.config(), out=str(out))
    config = settled(configs.parse_options(Config, flags, default=base), torch.device("cpu"))
    if not (out / "codes").exists():
        out.mkdir(parents=True, exist_ok=True)
        for name in ("pictures.json.gz", "run.json"):
            if (source.path / name).is_file():
                write_file(out / name, (source.path / name).read_bytes())
        # The codes last: where they are, all is there
        for folder in (source.stage1, *sorted(source.path.glob("stage2-*")), source.codes):
            if not folder.is_dir():
                continue  # imported codes have no stage one
            write_folder(out / folder.name, partial(shutil.copytree, folder, dirs_exist_ok=True))
    share_classifiers(source.path, out)
    if not (out / "stage2").exists():
        write_file(out / "config.yaml", configs.dump(config))
    return config


def refuse_without_finer(source: RunDir) -> None:
    """Refuse a run with levels whose finer priors, which draw below those compared, are not there."""
    for level in range(1, source.config().stage1.levels):
        if not checkpoint.is_evaluated(source.stage2_of(level)):
            command = command_line("train-prior", source.path, "--level", level)
            raise UserError(
                f"the prior of level {level}, which draws below those compared, is missing: {command}"
            )


def trained(source: RunDir, out: Path, kind: str, rate: float, seconds: float, more: list[str]) -> Path:
    """A run whose prior was trained for so many processor seconds."""
    flags = ["--stage2.prior", kind, *KINDS.get(kind, []), "--stage2.learning_rate", str(rate), *more]
    config = prepared(source, out, flags)
    if (out / "stage2").exists() and checkpoint.newest(out / "stage2", warn=print):
        steps = steps_begun(out, config)
    else:
        steps = max(1, int(seconds / seconds_per_step(config, source)))
    every = max(1, steps // 4)
    vqprior(
        *("train-prior", out, *(["--level", 0] if config.stage1.levels > 1 else []), "--stage2.steps", steps),
        *("--stage2.save_every", every, "--stage2.eval_every", every),
    )
    return out


def steps_begun(out: Path, config: Config) -> int:
    """How many steps a run was begun with.

    Raises:
        UserError: it was begun with other settings than these, as another rate that was searched then.
    """
    there, here = (asdict(of.stage2) for of in (RunDir(out).config(), config))
    of_time = ("steps", "save_every", "eval_every")
    if others := [name for name in here if name not in of_time and here[name] != there[name]]:
        found = ", ".join(f"stage2.{name} {there[name]} there and {here[name]} now" for name in others)
        raise UserError(f"{out} was begun with other settings: {found}; delete it, or take another --out")
    return there["steps"]


def rates(given: list[str]) -> dict[str, list[float]]:
    """Learning rates to try by kind, of words KIND=RATE or KIND=RATE,RATE.

    Raises:
        UserError: a word says something else.
    """
    try:
        words = [word.split("=") for word in given]
        found = {kind: [float(rate) for rate in several.split(",")] for kind, several in words}
    except ValueError:
        found = {"": []}
    if not found.keys() <= PRIORS.keys():
        expected = f"KIND=RATE or KIND=RATE,RATE, KIND one of {', '.join(PRIORS)}"
        raise UserError(f"--rates {' '.join(given)}: expected {expected}")
    return LEARNING_RATES | found


def held_out_bits(run: Path) -> float:
    """Bits/code on the validation split of the evaluation that chose the prior's weights."""
    return checkpoint.best(run / "stage2").score


def measured(run: Path) -> dict[str, Any]:
    """What `evaluate` found."""
    file = run / "metrics.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def evaluate(run: Path, options: argparse.Namespace, *flags: object) -> dict[str, Any]:
    """What `vqprior evaluate` finds."""
    vqprior("evaluate", run, "--classifier_steps", options.classifier_steps, *flags)
    return measured(run)


def best_guidance(run: Path, options: argparse.Namespace) -> float:
    """That of the samples with the least distance; 1 for a prior that was not trained for others."""
    prior, found = load_prior(checkpoint.best(run / "stage2"), torch.device("cpu")), {}
    for guidance in GUIDANCES if prior.null_label is not None else ():
        how = ("--only", "ladder", "--images", GUIDED, "--sample.guidance", guidance)
        found[guidance] = evaluate(run, options, *how)["ladder"]["rows"]["samples"]["frechet"]
    print(f"{run.name}: distance of {GUIDED:,} samples by guidance: {found}", flush=True)
    return min(found, key=found.get, default=1.0)


def seconds_to_sample(run: Path) -> float:
    """Processor seconds that the codes of `MAPS` images take, as `vqprior sample` draws them."""
    networks, settings = Networks.from_run(run, "cpu"), RunDir(run).config().sample
    images, sampling = torch.arange(MAPS), Sampling.of(settings, MAPS)
    labels = networks.labels_for(images)
    networks.codes(images, labels, sampling)
    began = time.process_time()
    networks.codes(images, labels, sampling)
    return time.process_time() - began


def figures(run: Path) -> dict[str, Any]:
    """What is measured of a run's prior."""
    found = checkpoint.best(run / "stage2")
    prior, config = load_prior(found, torch.device("cpu")), RunDir(run).config()
    maps = CodeMaps(run / "codes", verify=False)
    passes = dict(batch=config.inference_batch, precision="no")
    test, train = maps.split("test").down_to(0), maps.split("train").down_to(0)
    metrics = measured(run)
    rows, labels = metrics.get("ladder", {}).get("rows", {}), metrics.get("labels", {})
    return {
        "steps": found.step,
        "rate": config.stage2.learning_rate,
        "weights": sum(parameter.numel() for parameter in prior.parameters()),
        "bits/code": (bits := bits_per_code(prior, test, **passes)),
        "nats/map": bits * prior.level.places * math.log(2),
        "train": bits_per_code(prior, train, images=len(test), **passes),
        f"s/{MAPS} maps": seconds_to_sample(run),
        "FD": rows.get("samples", {}).get("frechet"),
        "coverage": rows.get("samples", {}).get("coverage"),
        "label": labels.get("label_accuracy"),
        "CAS": labels.get("cas", {}).get("samples"),
        "near": metrics.get("copies", {}).get("features", {}).get("share"),
    }


def compare(
    source: RunDir, kind: str, rates: list[float], options: argparse.Namespace, found: dict[str, Any]
) -> None:
    """Train a kind at each rate, then with each seed at the best, and put what is measured into `found` and
    its file."""

    def at(rate: float, seed: int) -> Path:
        out, flags = options.out / f"{kind}-{rate:g}-{seed}", ["--seed", str(seed), *options.flags]
        return trained(source, out, kind, rate, options.seconds, flags)

    bits = {rate: held_out_bits(at(rate, options.seeds[0])) for rate in rates}
    print(f"{kind}: held-out bits/code by rate: {bits}", flush=True)
    rate, guidance, found["tried"][kind] = min(bits, key=bits.get), None, bits
    for seed in options.seeds:
        run = at(rate, seed)
        if options.evaluate:
            guidance = guidance or best_guidance(run, options)
            parts = ("--only", "ladder", "labels", "copies")
            evaluate(run, options, *parts, "--images", options.images, "--sample.guidance", guidance)
        found["priors"][f"{kind}-{seed}"] = figures(run) | ({"guidance": guidance} if guidance else {})
        write_json(options.out / "priors.json", found)


def main() -> None:
    """Train, measure, tabulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--kinds", nargs="+", choices=PRIORS, default=[*PRIORS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rates", nargs="+", default=[], metavar="KIND=RATE")
    parser.add_argument("--evaluate", action="store_true")
    parser.add_argument("--classifier_steps", type=int, default=500)
    parser.add_argument("--images", type=int, default=10000, help="for each row of the evaluation")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    by_kind = rates(options.rates)
    source, found = RunDir(options.run), {"seconds": options.seconds, "tried": {}, "priors": {}}
    refuse_without_finer(source)
    for kind in options.kinds:
        compare(source, kind, by_kind[kind], options, found)
    table = found["priors"]
    columns = [*next(iter(table.values()))]
    print(f"{'':<18}" + "".join(f"{column:>11}" for column in columns))
    for name, row in table.items():
        cells = ("-" if row[column] is None else f"{row[column]:.4g}" for column in columns)
        print(f"{name:<18}" + "".join(f"{cell:>11}" for cell in cells))


if __name__ == "__main__":
    program("priors", main)
