"""Whether a device computes what the CPU does: codes, hash, noise, logits, and every way to draw."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.device import attempted
from benchmarks.gpu.sampling import drawn, replayed
from vqprior.configs.schema import Precision
from vqprior.runtime import devices
from vqprior.runtime.processes import device_of_process
from vqprior.runtime.randomness import generator, hash64
from vqprior.sampling.choice import Choice, Sampling
from vqprior.sampling.networks import Networks
from vqprior.sampling.noise import gumbel_noise
from vqprior.sampling.workspace import Workspace

MODELS = Path(__file__).parents[2] / "models"
MODEL = MODELS / "mnist"


def strokes(count: int) -> torch.Tensor:
    """Made-up digits: smooth white lines on black, uint8 [count, 28, 28, 1]."""
    along = torch.linspace(0, 1, 24)[None, :, None]
    corners = torch.rand(3, count, 1, 2, generator=generator(0, 11)) * 20 + 4
    points = (1 - along) ** 2 * corners[0] + 2 * along * (1 - along) * corners[1] + along**2 * corners[2]
    grid = torch.cartesian_prod(torch.arange(28.0), torch.arange(28.0))[None]
    distances = torch.cdist(grid.expand(count, -1, -1), points).amin(-1)
    return ((2.2 - distances).clamp(0, 1) * 255).to(torch.uint8).view(count, 28, 28, 1)


def codes_equal_the_cpus(count: int) -> list[dict[str, Any]]:
    """How many codes of models/mnist differ from the CPU's, with and without TF32."""
    pictures, device = strokes(count).numpy(), device_of_process()
    here = torch.from_numpy(Networks.from_run(MODEL, "cpu").tokenizer.encode(pictures, precision="no"))
    there = Networks.from_run(MODEL, device)
    rows = []
    for precision in ("no", "tf32"):

        def compare(precision: Precision = precision) -> dict[str, Any]:
            codes = torch.from_numpy(there.tokenizer.encode(pictures, precision=precision))
            wrong = codes != here
            maps = wrong.flatten(1).any(1).double().mean().item()
            return {"codes": wrong.double().mean().item(), "maps": maps, "of": len(pictures)}

        rows.append({"precision": devices.fp32_precision(precision)} | attempted(compare))
    return rows


@torch.no_grad()
def self_checks() -> dict[str, Any]:
    """What must be equal or close: hash, noise, logits, sampling from a cache, a call made again."""
    device = device_of_process()
    here, there = Networks.from_run(MODEL, "cpu"), Networks.from_run(MODEL, device)
    numbers = torch.arange(1000) * 2**33 + 1
    images, workspace = torch.arange(16), Workspace()
    codes = torch.randint(here.priors[0].K, (16, 7, 7), generator=generator(0, 12))
    labels = images % 10
    at = lambda tensor: tensor.to(device)
    noise = gumbel_noise(0, at(images), there.priors[0].K)
    full = drawn(workspace, there.priors[0], at(labels), noise, in_full=True).cpu()
    cached = drawn(workspace, there.priors[0], at(labels), noise).cpu()
    again = drawn(workspace, there.priors[0], at(labels), noise).cpu()
    by_rows = [replayed(workspace, there.priors[0], at(labels), noise).cpu() for _ in range(3)]
    on_cpu = drawn(Workspace(), here.priors[0], labels, gumbel_noise(0, images, here.priors[0].K))
    gap = lambda a, b: (a.float().cpu() - b.float()).abs().max().item()
    return {
        "the hash is the CPU's": torch.equal(hash64(3, at(numbers)).cpu(), hash64(3, numbers)),
        "largest difference of the noise": gap(noise(2, 7), gumbel_noise(0, images, here.priors[0].K)(2, 7)),
        "largest difference of logits": gap(
            there.priors[0](at(codes), at(labels)), here.priors[0](codes, labels)
        ),
        "codes that the cache changes": (full != cached).double().mean().item(),
        "codes that a second call changes": (again != cached).double().mean().item(),
        "codes that recording changes": (by_rows[-1] != cached).double().mean().item(),
        "codes drawn otherwise than on the CPU": (on_cpu != cached).double().mean().item(),
    }


def ways_agree(models: Sequence[str]) -> dict[str, Any]:
    """The shares of codes of shipped models that are drawn otherwise than kernel by kernel from the cache; in
    bf16 a tie within rounding changes all codes after it, which the gap to a full forward tells from
    errors."""
    device, images, found = device_of_process(), torch.arange(32), {}
    for model, precision in product(models, ("no", "bf16")):
        networks = Networks.from_run(MODELS / model, device)
        choice, labels = Choice(guidance=1.5, top_p=0.95), networks.labels_for(images)
        sampling = Sampling(0, choice, precision, batch_size=32, method="cached")
        first, _, replayed = (networks.codes(images, labels, sampling) for _ in range(3))
        others = {"recorded rows": replayed}
        for method in ("parallel", "plain"):
            others[method] = networks.codes(images, labels, replace(sampling, method=method))
        for way, codes in others.items():
            pairs = zip(first, codes, strict=True)
            differing = torch.cat([(one != other).flatten() for one, other in pairs])
            found[f"codes drawn otherwise, {model}, {precision}: {way}"] = differing.double().mean().item()
        proof = networks.verify(replayed, images, labels, sampling)
        found[f"largest gap to a full forward, {model}, {precision}"] = proof.largest_gap
    return found
