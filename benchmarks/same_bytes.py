"""Whether two commits make the same bytes: for changes of structure, which must change nothing.

    python -m benchmarks.same_bytes COMMIT [OTHER]        # OTHER: HEAD unless given

Both are checked out into folders of their own and do the same on one thread: samples of models/mnist
(guidance, top-p, several batch sizes, one and two processes) and a short run of mnist5k with both codebooks
(weights, moving averages, code maps, samples and figures). Tensors are compared by what they hold and not by
what they are called, since names may change. Exits with 1 where something differs.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).parent.parent
SAMPLES = {
    "plain": ["--images", "12"],
    "guided": ["--images", "12", "--guidance", "2.5", "--temperature", "0.9"],
    "top_p, batches of 5": ["--images", "12", "--top_p", "0.8", "--batch_size", "5"],
    "top_k, one class": ["--images", "12", "--top_k", "4", "--label", "7", "--batch_size", "64"],
}
SHORT = [
    *(
        "--stage1.steps",
        "40",
        "--stage1.save_every",
        "20",
        "--stage1.eval_every",
        "40",
        "--stage1.codebook.restart",
        "0.5",
    ),
    *(
        "--stage2.steps",
        "40",
        "--stage2.save_every",
        "20",
        "--stage2.eval_every",
        "40",
        "--sample.images",
        "20",
    ),
]
RUNS = {"ema": [], "gradient, accumulated": ["--stage1.quantizer", "gradient", "--stage1.accumulate", "2"]}
Digests = dict[str, object]  # by the name of what was made


def checkout(commit: str, folder: Path) -> Path:
    """A clean checkout of a commit."""
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "checkout", "--quiet", commit], cwd=folder, check=True)
    return folder


def call(clone: Path, arguments: list[str], processes: int = 1) -> None:
    """`vqprior ARGUMENTS` of a checkout, on one thread a process."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    env = {**os.environ, "PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, "-m", "vqprior", *arguments], cwd=clone, env=env, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(
            f"vqprior {' '.join(arguments)} in {clone} ended with {done.returncode}:\n{done.stderr[-3000:]}"
        )


def digest(array: np.ndarray) -> str:
    """Of shape, type and content."""
    return hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes()).hexdigest()[:16]


def of_samples(folder: Path) -> dict[str, str]:
    """The arrays of an archive of samples."""
    with np.load(folder / "samples.npz") as arrays:
        return {name: digest(arrays[name]) for name in ("images", "labels")}


def of_run(run: Path) -> Digests:
    """What a run has learnt, encoded, drawn and measured."""
    found: Digests = {"samples": of_samples(run / "samples")}
    for file in sorted(run.glob("stage*/step-*/*.safetensors")):
        found[str(file.relative_to(run))] = Counter(map(digest, load_file(file).values()))
    for file in sorted((run / "codes").glob("*.npy")):
        found[f"codes/{file.name}"] = digest(np.load(file))
    metrics = json.loads((run / "metrics.json").read_text())
    return found | {stage: json.dumps(metrics[stage], sort_keys=True) for stage in ("stage1", "stage2")}


def made_by(clone: Path) -> Digests:
    """All that is compared."""
    found: Digests = {}
    for name, flags in SAMPLES.items():
        for processes in (1, 2):
            out = clone / "made" / f"{name} {processes}"
            call(clone, ["sample", "models/mnist", *flags, "--out", str(out)], processes)
            found[f"samples, {name}, {processes} processes"] = of_samples(out)
    for name, flags in RUNS.items():
        out = clone / "made" / name
        call(clone, ["run", "mnist5k", *SHORT, *flags, "--out", str(out)])
        found |= {f"run, {name}: {part}": value for part, value in of_run(out).items()}
    return found


def main() -> None:
    """Compare, and say what differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("commit", help="what it is compared with, such as main~3")
    parser.add_argument("other", nargs="?", default="HEAD")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clones = [
            checkout(commit, Path(folder) / name)
            for commit, name in ((asked.commit, "a"), (asked.other, "b"))
        ]
        before, after = map(made_by, clones)
    differing = [name for name in before | after if before.get(name) != after.get(name)]
    for name in before | after:
        print(f"{'DIFFERS' if name in differing else 'same':<9}{name}")
    print(f"{len(before | after) - len(differing)} of {len(before | after)} are the same bytes")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
