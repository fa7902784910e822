"""Two machines, one of them lost in the middle of a run: two network namespaces joined by a cable of their
own.

    sudo python -m benchmarks.two_machines

`vqprior run` goes over gloo as two nodes behind torchrun. Once a checkpoint of the chosen stage is there,
everything on the second node is killed; some seconds later the node comes back and types the same command.
What the run ends with is compared with an unbroken run of two processes on one machine, byte by byte, and
with one of a single process. Needs root, `ip` (Debian's iproute2) and leave to make namespaces; says so and
does nothing without.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from benchmarks import kill_test
from benchmarks.kill_test import fingerprint, finish, kill, make_pictures, start

NODES = ("vqprior0", "vqprior1")
ADDRESSES = ("10.79.0.1", "10.79.0.2")
# A store of its own for each meeting: the shared one of torch 2.14 leaves a node that comes back without an
# answer
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "GLOO_SOCKET_IFNAME": "veth",
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}
FLAGS = [*kill_test.FLAGS, "--precision", "no"]
TORCHRUN = "--nnodes 2 --nproc_per_node 1 --rdzv_backend c10d --rdzv_id vqprior --max-restarts 3".split()


def ip(*arguments: str) -> None:
    """A command of iproute2; fails loudly."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def cable() -> Iterator[None]:
    """Inside, there are two namespaces whose devices `veth` are joined; what a killed measurement left goes
    first."""
    for node in NODES:
        subprocess.run(["ip", "netns", "del", node], capture_output=True)
    try:
        for node in NODES:
            ip("netns", "add", node)
        ip(
            "link",
            "add",
            "veth",
            "netns",
            NODES[0],
            "type",
            "veth",
            "peer",
            "name",
            "veth",
            "netns",
            NODES[1],
        )
        for node, address in zip(NODES, ADDRESSES, strict=True):
            ip("-n", node, "addr", "add", f"{address}/24", "dev", "veth")
            for device in ("veth", "lo"):
                ip("-n", node, "link", "set", device, "up")
        yield
    finally:
        for node in NODES:
            subprocess.run(["ip", "netns", "del", node], capture_output=True)


def start_node(node: int, pictures: Path, out: Path, log: Path) -> subprocess.Popen:
    """The run on one node, in a session of its own."""
    command = ["ip", "netns", "exec", NODES[node], sys.executable, "-m", "torch.distributed.run", *TORCHRUN]
    command += ["--rdzv_endpoint", f"{ADDRESSES[0]}:29400", "--local_addr", ADDRESSES[node]]
    # torchrun goes by host names, and both have the same here
    command += ["--rdzv_conf", f"is_host={node == 0}"]
    command += ["-m", "vqprior", "run", "folder", *FLAGS, "--data.root", str(pictures), "--out", str(out)]
    with open(log, "a") as file:
        return subprocess.Popen(
            command, env=os.environ | ENVIRONMENT, start_new_session=True, stdout=file, stderr=file
        )


def wait_for(path: Path, nodes: list[subprocess.Popen], seconds: float) -> float:
    """Wait until a file is there; how many seconds that took."""
    began = time.monotonic()
    while not path.exists():
        if time.monotonic() - began > seconds or any(node.poll() is not None for node in nodes):
            raise TimeoutError(f"{path.name} did not come")
        time.sleep(0.05)
    return time.monotonic() - began


def broken_run(root: Path, out: Path, stage: str, away: float) -> dict[str, Any]:
    """One run that loses its second node after step 50 of a stage; the seconds until it went on."""
    log = root / f"{out.name}.log"
    nodes = [start_node(node, root / "pictures", out, log) for node in (0, 1)]
    try:
        wait_for(out / stage / "step-00000050", nodes, 120)
        kill(nodes[1])
        steps = sorted(path.name for path in (out / stage).glob("step-????????"))
        time.sleep(away)
        nodes[1] = start_node(1, root / "pictures", out, log)
        following = out / stage / f"step-{int(steps[-1].removeprefix('step-')) + 20:08d}"
        seconds = wait_for(following, nodes, 200)
        codes = [node.wait(timeout=200) for node in nodes]
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        sys.exit(f"{error}\n{log.read_text()[-6000:]}")
    finally:
        for node in nodes:
            if node.poll() is None:
                kill(node)
    return {
        "stage": stage,
        "killed_after": steps[-1],
        "away_s": away,
        "went_on_after_s": round(seconds, 1),
        "exit": codes,
    }


def difference(a: Path, b: Path) -> float:
    """Largest relative difference of a tensor between the final weights of two runs."""
    found = []
    for stage in ("stage1", "stage2"):
        one, other = (
            load_file(sorted((run / stage).glob("step-*"))[-1] / "model.safetensors") for run in (a, b)
        )
        found += [
            float((one[name] - other[name]).norm() / other[name].norm().clamp(min=1e-12)) for name in one
        ]
    return max(found)


def hindrance() -> str | None:
    """Why there can be no namespaces here, in words."""
    if os.geteuid() != 0:
        return "it needs root, to make network namespaces"
    if shutil.which("ip") is None:
        return "it needs the command ip (apt-get install iproute2)"
    try:
        with cable():
            return None
    except subprocess.CalledProcessError as error:
        return f"namespaces cannot be made here: {error.stderr.strip()}"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--away", type=float, default=3.0, help="seconds until the lost node comes back")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    if reason := hindrance():
        print(f"skipped: {reason}")
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder, cable():
        root = Path(folder)
        make_pictures(root / "pictures")
        for processes in (1, 2):
            finish(start(root / "pictures", root / f"unbroken{processes}", processes, FLAGS))
        expected = fingerprint(root / "unbroken2")
        for stage in ("stage1", "stage2"):
            out = root / f"broken-{stage}"
            row = broken_run(root, out, stage, options.away)
            found = fingerprint(out)
            row["different"] = [name for name in expected if found.get(name) != expected[name]]
            row["from_one_process"] = difference(out, root / "unbroken1")
            rows.append(row)
            verdict = f"DIFFERENT from two processes on one machine: {', '.join(row['different'])}"
            print(
                f"second node killed in {stage} after {row['killed_after']}, back {options.away:g} s later; "
                f"new checkpoints {row['went_on_after_s']} s after that; exit codes {row['exit']};",
                verdict if row["different"] else "equal, byte by byte, to two processes on one machine;",
                f"weights differ from those of one process by {row['from_one_process']:.1e}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))
    sys.exit(any(row["different"] or any(row["exit"]) for row in rows))


if __name__ == "__main__":
    main()
