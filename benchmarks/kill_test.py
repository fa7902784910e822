"""Kill a small `vqprior run` at random instants, start it again, and compare what it leaves with an unbroken
run.

    python -m benchmarks.kill_test --kills 30

Half of the kills hit one process, half two gloo processes behind torchrun; SIGKILL goes to every process of
the run. The five steps are hit in turn, each at a random instant of the time that it takes in an unbroken
run. Prints a line a kill and a summary, and writes both as JSON.
"""

import argparse
import contextlib
import hashlib
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

FLAGS = """--data.size 16 16 --data.validation 0.2 --data.test 0.2
--stage1.levels 1 --stage1.K 16 --stage1.D 4 --stage1.width 16
--stage1.steps 200 --stage1.batch_size 8 --stage1.log_every 1 --stage1.save_every 10 --stage1.eval_every 50
--stage2.steps 200 --stage2.batch_size 8 --stage2.log_every 1 --stage2.save_every 10 --stage2.eval_every 50
--stage2.channels 16 --stage2.layers 3 --stage2.gated_pixelcnn.head 16 --sample.images 64
--sample.batch_size 2 --inference_batch 8""".split()

STEPS = ("train-vqvae", "encode", "train-prior", "sample", "evaluate")
logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it remarks on every resumed curve


def make_pictures(root: Path, count: int = 120) -> None:
    """Smooth made-up pictures in two classes."""
    rng = np.random.default_rng(0)
    for index in range(count):
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        folder = root / ("ant", "bee")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        small.resize((16, 16), Image.Resampling.BICUBIC).save(folder / f"{index}.png")


def start(pictures: Path, out: Path, processes: int, flags: list[str] = FLAGS) -> subprocess.Popen:
    """The run, in a process group of its own."""
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        if processes > 1
        else []
    )
    command = [sys.executable, *launcher, "-m", "vqprior", "run", "folder", *flags]
    command += ["--data.root", str(pictures), "--out", str(out)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def kill(process: subprocess.Popen) -> None:
    """SIGKILL for the launcher and all below it; torchrun's processes are in sessions of their own."""
    everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in everyone:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(everyone)
    process.wait()


def finish(process: subprocess.Popen) -> None:
    """Wait for a run to end well."""
    _, error = process.communicate()
    if process.returncode:
        sys.exit(f"the run failed:\n{error.decode()[-3000:]}")


def fingerprint(out: Path) -> dict[str, str]:
    """Weights, optimizers, averages, code maps and samples by their checksums, and the curves by step and
    value."""
    newest = [sorted((out / stage).glob("step-*"))[-1] for stage in ("stage1", "stage2")]
    files = [file for folder in newest for file in folder.glob("*.safetensors")]
    files += [*(out / "codes").glob("*.npy"), out / "samples" / "samples.npz"]
    found = {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    for stage, tag in (("stage1", "stage1_loss/total"), ("stage2", "stage2_loss/bits_per_code")):
        events = EventAccumulator(str(out), size_guidance={"scalars": 0}).Reload()
        found[f"curve of {stage}"] = str([(event.step, event.value) for event in events.Scalars(tag)])
    return found


def begun(out: Path) -> set[str]:
    """The steps of `vqprior run` that have begun in a run directory."""
    signs = {
        "train-vqvae": out / "stage1" / "step-00000010",
        "encode": out / "codes.partial",
        "train-prior": out / "stage2",
        "sample": out / "stage2" / "step-00000200",
        "evaluate": out / "samples" / "samples.json",
    }
    found = {step for step, sign in signs.items() if sign.exists()}
    return found | ({"encode"} if (out / "codes").exists() else set())


def wait_for(step: str, out: Path, process: subprocess.Popen) -> float:
    """Wait until a step has begun or the run has ended; the time at which that was."""
    while step not in begun(out) and process.poll() is None:
        time.sleep(0.005)
    return time.monotonic()


def durations(pictures: Path, out: Path, processes: int) -> dict[str, float]:
    """Seconds that each step of an unbroken run takes."""
    process = start(pictures, out, processes)
    times = [wait_for(step, out, process) for step in STEPS]
    finish(process)
    times.append(time.monotonic())
    return {step: end - begin for step, (begin, end) in zip(STEPS, pairwise(times), strict=True)}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30, help="random instants in all")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--json", type=Path, default=None, help="where to write the result")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_pictures(root / "pictures")
        for processes in (1, 2):
            unbroken = root / f"unbroken{processes}"
            seconds = durations(root / "pictures", unbroken, processes)
            expected = fingerprint(unbroken)
            for index in range(options.kills // 2):
                out, step = root / f"run{processes}-{index}", STEPS[index % len(STEPS)]
                instant = chance.uniform(0, seconds[step])
                process = start(root / "pictures", out, processes)
                wait_for(step, out, process)
                time.sleep(instant)
                kill(process)
                finish(start(root / "pictures", out, processes))
                found = fingerprint(out)
                different = [name for name in expected if found.get(name) != expected[name]]
                rows.append(
                    {
                        "processes": processes,
                        "step": step,
                        "second": round(instant, 3),
                        "different": different,
                    }
                )
                verdict = f"DIFFERENT: {', '.join(different)}" if different else "equal"
                print(
                    f"{processes} process(es), killed {instant:6.3f} s into {step:<11} {verdict}", flush=True
                )
    equal = sum(not row["different"] for row in rows)
    print(f"{equal} of {len(rows)} killed runs ended equal to an unbroken run")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))
    sys.exit(equal < len(rows))


if __name__ == "__main__":
    main()
