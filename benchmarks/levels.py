"""Do levels earn their place: one map of codes against two, with as many weights and as much processor time.

    python -m benchmarks.levels folder --variants one two --seconds 1200 1800 --out compared --flags
    --data.root PHOTOS

Each variant (`VARIANTS`: the flags that differ) is a run of its own in OUT, trained on one thread for the
seconds of stage one and of all its priors together, of which the coarsest of several takes `COARSEST`. How
many steps that is, is found on the first steps of that very run and kept in its steps.json: a step takes up
to three times the processor time beside other work (seen here), so keep the machine as busy for all of them.
The same command again goes on where it stopped, and `vqprior report OUT/VARIANT` shows any of them.
Classifiers of all training images are learnt once; `--only likelihood` leaves out what needs them. Prints a
table of all runs in OUT and writes OUT/table.json and OUT/reconstructions.png: a row of test pictures, and a
row of each variant's reconstructions of them. `--flags`, which come last, are given to every run; those of
`stage2_fine` only to those with levels.
"""

import argparse
import json
import resource
from pathlib import Path
from typing import Any

from benchmarks.ablations import reconstructions
from benchmarks.command import program, vqprior
from vqprior.configs.errors import UserError
from vqprior.runtime import checkpoint
from vqprior.runtime.files import write_file, write_json
from vqprior.runtime.pictures import save_png
from vqprior.runtime.run_dir import RunDir, checkpoint_folders

VARIANTS: dict[str, str] = {
    "one": "--stage1.levels 1 --stage1.width 112 --stage2.layers 9 --stage2.channels 96",
    "two": "--stage1.levels 2 --stage1.width 64 --stage2.layers 8 --stage2.channels 64 "
    "--stage2_fine.layers 8 --stage2_fine.channels 64 --stage2_fine.above_blocks 2",
}
"""By name: the flags besides those given. Weights are as good as equal at 64x64 with K=256: 2.34 and 2.36
M."""
MEASURED = ("stage1", "stage2", "ladder", "labels", "copies")  # what metrics.json has of `evaluate`
ALWAYS, MORE = ("reconstruction", "likelihood"), ("ladder", "labels", "copies")  # parts of `evaluate`
COARSEST = 1 / 3  # of the time for priors, where there are several
FIRST = (20, 120, 520)  # steps to which it is trained first: loading data takes no two times alike


def processor_seconds(*command: object) -> float:
    """What a command takes, of all its threads."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    vqprior(*command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def train(command: list[object], flag: str, folder: Path, seconds: float) -> None:
    """Train a network as many steps as take so many processor seconds; nothing if that is done."""
    if (told := folder / "steps.json").is_file():
        steps = json.loads(told.read_text())["steps"]
    else:
        if checkpoint_folders(folder):  # steps that are done would take no time
            raise UserError(
                f"{folder} was begun by another command, or stopped while its first steps were timed; delete "
                "it, or give another --out"
            )
        _, short, long = (processor_seconds(*command, flag, steps) for steps in FIRST)
        per_step = (long - short) / (FIRST[2] - 2 * FIRST[1] + FIRST[0])
        if per_step <= 0:
            raise UserError(f"the first {FIRST[2]} steps took no longer than loading the data; type it again")
        steps = int(seconds / per_step)
        if steps < FIRST[2]:
            print(f"{folder} gets {FIRST[2]} steps, more than the {steps} of {seconds:g} s", flush=True)
            steps = FIRST[2]
        write_json(told, {"steps": steps, "seconds": seconds})
    vqprior(*command, flag, steps)


def figures(run: Path) -> dict[str, Any]:
    """What the table shows of a run; a list has an entry for each level, coarsest first."""
    metrics = json.loads((run / "metrics.json").read_text())
    one, two, ladder, labels, copies = (metrics.get(part, {}) for part in MEASURED)
    used = [checkpoint.best(folder) for folder in (run / "stage1", *sorted(run.glob("stage2*")))]
    rows = ladder.get("rows", {})
    samples = rows.get("samples", {})
    told = json.loads((run / "stage1" / "steps.json").read_text())
    levels = one.get("levels", [one])
    return {
        "weights": sum(tensor.numel() for found in used for tensor in found.tensors(found.weights).values()),
        "steps": [found.step for found in used],
        "ms a step": 1000 * told["seconds"] / told["steps"],
        "MSE": one["mse"],
        "PSNR": one["psnr"],
        "SSIM": one["ssim"],
        "perplexity": [round(level["perplexity"], 1) for level in levels],
        "codes used": [round(level["usage"], 3) for level in levels],
        "bits/image": two["bits_per_image"],
        "bits/dim": two.get("bits_per_dim"),
        "FD rec": rows.get("reconstructions", {}).get("frechet"),
        "FD": samples.get("frechet"),
        "coverage": samples.get("coverage"),
        "right label": labels.get("label_accuracy"),
        "CAS": labels.get("cas", {}).get("samples"),
        "copies": copies.get("features", {}).get("share"),
    }


def flags_of(name: str, given: list[str]) -> list[str]:
    """The flags of a variant and those given, `stage2_fine` only where it has levels."""
    own, kept, more = VARIANTS[name].split(), True, []
    leveled = "--stage1.levels 2" in VARIANTS[name]
    for word in given:
        if word.startswith("--"):
            kept = leveled or not word.startswith("--stage2_fine")
        more += [word] if kept else []
    return own + more


def main() -> None:
    """Train, measure, tabulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, nargs=2, default=(1200, 1800))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, required=True)
    parser.add_argument("--images", type=int, default=10000, help="for each row of the evaluation")
    parser.add_argument("--classifier_steps", type=int, default=500)
    parser.add_argument("--only", nargs="+", choices=(*ALWAYS, *MORE), default=[], help="parts of evaluate")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    for name in options.variants:
        run = options.out / name
        flags = [*flags_of(name, options.flags), "--out", str(run)]
        of_stage_one, of_priors = options.seconds
        train(["train-vqvae", options.preset, *flags], "--stage1.steps", run / "stage1", of_stage_one)
        vqprior("encode", run)
        levels = RunDir(run).config().stage1.levels
        for level in range(levels):
            share = 1 if levels == 1 else COARSEST if level == 0 else (1 - COARSEST) / (levels - 1)
            flag = "--stage2.steps" if level == 0 else "--stage2_fine.steps"
            command = ["train-prior", run, "--level", level]
            train(command, flag, RunDir(run).stage2_of(level), of_priors * share)
        for file in options.out.glob("*/evaluation/classifier-[at]*"):  # of training images
            target = run / "evaluation" / file.name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                write_file(target, file.read_bytes())
        how = ("--images", options.images, "--classifier_steps", options.classifier_steps)
        vqprior("evaluate", run, *how, "--only", *dict.fromkeys((*ALWAYS, *(options.only or MORE))))
        runs = [options.out / name for name in VARIANTS if (options.out / name / "metrics.json").is_file()]
        table = {run.name: figures(run) for run in runs}
        write_json(options.out / "table.json", {"seconds": options.seconds, "runs": table})
        save_png(options.out / "reconstructions.png", reconstructions(runs))
    for column in next(iter(table.values())):
        cells = (row[column] for row in table.values())
        texts = (f"{cell:.5g}" if isinstance(cell, int | float) else str(cell or "-") for cell in cells)
        print(f"{column:<14}" + "".join(f"{text:>20}" for text in texts))


if __name__ == "__main__":
    program("levels", main)
