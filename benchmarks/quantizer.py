"""Forward, backward and update of a quantizer, beside vector-quantize-pytorch and beside one matrix product.

    pip install vector-quantize-pytorch
    python -m benchmarks.quantizer --out quantizer.json
    python -m benchmarks.quantizer --gradient rotation --sizes 8192,64,512

Sizes are N,D,K: N encoder outputs of D numbers, K codes. A step is what a training loop does with them: codes
and vectors, the gradient of both the vectors and the commitment term, and the moving averages. Both are given
the vectors as a convolution with channels last leaves them. `product` is [N, D] x [D, K] alone, into memory
that is there already: the least that any exact search through a codebook takes.

All three are measured in turn, round after round, on one thread; ratios are of the same round, and the table
has their median and, behind it, the least and the largest. Memory is the most that a step holds besides its
inputs and parameters, above what was there before: of the process (Linux), or of the CUDA device.
"""

import argparse
import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from vqprior.configs.schema import Gradient, Stage1
from vqprior.runtime.files import write_json
from vqprior.runtime.processes import device_of_process
from vqprior.stage1_vqvae.quantizers import build
from vqprior.stage1_vqvae.quantizers.carry import CARRIES

try:
    from vector_quantize_pytorch import VectorQuantize
except ImportError as error:
    raise SystemExit(
        f"this benchmark compares with vector-quantize-pytorch, which cannot be imported ({error}): "
        "pip install vector-quantize-pytorch"
    ) from error

Step = Callable[[], None]

SIZES = (
    *((8192, 64, 512), (8192, 256, 512), (8192, 64, 8192), (131072, 64, 512), (8192, 8, 16384)),
    (4096, 256, 16384),
)
BATCH = 128  # images that the vectors are of
BETA = 0.25
SECONDS = 0.3  # that a figure of one round is measured for, at least


class Vectors(NamedTuple):
    """What a step works on."""

    z_e: Tensor  # [B, D, h, w] with channels last
    gradient: Tensor  # what a decoder has to say of the code vectors, likewise
    drawn: Tensor  # [K] vectors that codes may be restarted on


def vectors(N: int, D: int, K: int, device: torch.device) -> Vectors:
    """Made-up encoder outputs of BATCH images, around as many centres as there are codes."""
    chance = torch.Generator().manual_seed(0)
    centres = torch.randn(K, D, generator=chance)[torch.randint(K, (N,), generator=chance)]
    flat = centres + 0.5 * torch.randn(N, D, generator=chance)
    drawn = torch.randint(N, (K,), generator=chance)
    as_map = lambda x: rearrange(x.to(device), "(b n) d -> b d n 1", b=BATCH)
    return Vectors(
        as_map(flat).requires_grad_(), as_map(torch.randn(N, D, generator=chance)), drawn.to(device)
    )


def ours(N: int, D: int, K: int, gradient: Gradient, device: torch.device) -> Step:
    """A step of this project's EMA codebook."""
    given = vectors(N, D, K, device)
    book = build(Stage1(K=K, D=D, gradient=gradient)).to(device)

    def step() -> None:
        out = book(given.z_e)
        torch.autograd.backward([out.z_q, BETA * out.terms["commitment"]], [given.gradient, None])
        flat = rearrange(out.z_e.detach(), "b d h w -> (b h w) d")
        book.update(book.observe(flat, out.codes.flatten(), given.drawn))
        given.z_e.grad = None

    return step


def theirs(N: int, D: int, K: int, gradient: Gradient, device: torch.device) -> Step:
    """The same step of vector-quantize-pytorch's, with the layout that it computes in, [B, h * w, D]."""
    given = vectors(N, D, K, device)
    rotates = gradient == "rotation"
    book = VectorQuantize(
        D, K, decay=0.99, threshold_ema_dead_code=1, commitment_weight=BETA, rotation_trick=rotates
    ).to(device)
    in_rows = lambda x: rearrange(x, "b d h w -> b (h w) d").detach()
    z, upstream = in_rows(given.z_e).requires_grad_(), in_rows(given.gradient)

    def step() -> None:
        z_q, _, commitment = book(z)
        torch.autograd.backward([z_q, commitment.sum()], [upstream, None])
        z.grad = None

    return step


def product(N: int, D: int, K: int, device: torch.device) -> Step:
    """The one matrix product."""
    given = vectors(N, D, K, device)
    flat = rearrange(given.z_e.detach(), "b d h w -> (b h w) d")
    codebook, found = torch.randn(D, K, device=device), torch.empty(N, K, device=device)
    found.zero_()  # so that its memory is there
    return lambda: torch.mm(flat, codebook, out=found)


def seconds(step: Step, times: int, device: torch.device) -> float:
    """Mean time of a step."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    for _ in range(times):
        step()
    wait()
    return (time.perf_counter() - began) / times


def peak_extra(step: Step, device: torch.device) -> int | None:
    """The most bytes that a step holds above what was there before; None where that cannot be seen."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    if platform.system() != "Linux":
        return None
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _status("VmRSS")
    step()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    """A figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def compared(
    size: tuple[int, int, int], gradient: Gradient, rounds: int, device: torch.device
) -> dict[str, object]:
    """All figures of one size."""
    steps = {
        "ours": ours(*size, gradient, device),
        "theirs": theirs(*size, gradient, device),
        "product": product(*size, device),
    }
    times = {}
    for name, step in steps.items():
        step()  # what is set up once
        times[name] = max(1, round(SECONDS / seconds(step, 1, device)))
    measured = [
        {name: seconds(step, times[name], device) for name, step in steps.items()} for _ in range(rounds)
    ]
    memory = {name: peak_extra(steps[name], device) for name in ("ours", "theirs")}
    return {
        "size": dict(zip("NDK", size, strict=True)),
        "milliseconds": {name: 1e3 * statistics.median(of[name] for of in measured) for name in steps},
        "times as fast as theirs": spread(of["theirs"] / of["ours"] for of in measured),
        "products": spread(of["ours"] / of["product"] for of in measured),
        "products of theirs": spread(of["theirs"] / of["product"] for of in measured),
        "extra bytes": memory,
    }


def spread(ratios: Sequence[float]) -> dict[str, float]:
    """The median of ratios and how far they lie apart."""
    found = [*ratios]
    return {"median": statistics.median(found), "least": min(found), "largest": max(found)}


def row(found: dict[str, object]) -> str:
    """A line of the table."""
    size, times, memory = found["size"], found["milliseconds"], found["extra bytes"]
    ratio = lambda of: f"{of['median']:.2f} ({of['least']:.2f}-{of['largest']:.2f})"
    megabytes = [
        f"{memory[name] / 2**20:8.1f}" if memory[name] is not None else f"{'-':>8}" for name in memory
    ]
    return (
        f"{size['N']:>7} {size['D']:>4} {size['K']:>6}"
        + "".join(f"{times[name]:>10.2f}" for name in ("ours", "theirs", "product"))
        + f"{ratio(found['times as fast as theirs']):>22}{ratio(found['products']):>22}"
        + "  "
        + " ".join(megabytes)
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    as_size = lambda text: tuple(map(int, text.split(",")))
    parser.add_argument("--sizes", type=as_size, nargs="+", default=SIZES, metavar="N,D,K")
    parser.add_argument("--gradient", choices=CARRIES, default="straight_through")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device, version = device_of_process(), importlib.metadata.version("vector-quantize-pytorch")
    print(f"{device}, one thread, vector-quantize-pytorch {version}, gradient {options.gradient}")
    print(
        f"{'N':>7} {'D':>4} {'K':>6}{'ours ms':>10}{'theirs':>10}{'product':>10}"
        f"{'times as fast':>22}{'products of ours':>22}  MB: ours and theirs"
    )
    found = []
    for size in options.sizes:
        found.append(compared(size, options.gradient, options.rounds, device))
        print(row(found[-1]), flush=True)
    if options.out:
        about = {"device": str(device), "gradient": options.gradient, "vector_quantize_pytorch": version}
        write_json(options.out, about | {"sizes": found})


if __name__ == "__main__":
    main()
