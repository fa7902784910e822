"""What the first person with a GPU should measure: speed, memory, waits, and whether the numbers are right.

    python -m benchmarks.gpu                          all of it, in under 10 minutes: gpu.json and gpu.md
    python -m benchmarks.gpu --presets mnist --quick  the same in miniature, on any machine
    python -m benchmarks.gpu --memory                 memory of training, counted: no GPU needed
    python -m benchmarks.gpu --operations             operations and waits of a step, counted: no GPU needed
    python -m benchmarks.gpu --work                   arithmetic of training, counted: no GPU needed

Training: the real loops on made-up data, both stages of each preset, at the preset's batch or, where that
does not fit, at a half of it, a quarter, and so on; in fp32, TF32, bf16, and bf16 as a recorded step
(`--cuda_graph`). The ways take turns, round after round; the figures are medians over rounds. Of each way
also: the peak of the allocated memory; a step of 4 images, which is the host's time to launch it all; and
from a few steps apart, which the profiler slows, the time that kernels run, their number, and how often
torch says that the host waits (`set_sync_debug_mode`; waiting for an event is not among them). Where
kernels run for less than the step takes, launches bound the step, not arithmetic.

Sampling: priors of random weights, images a second, ms a code, and all codes in multiples of one full
forward. Encoding: pictures on the CPU to codes on the CPU. Checks: what should be equal to the CPU, and how
far it is."""

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, supported_activities

from benchmarks.gpu_report import as_markdown
from benchmarks.gpu_steps import CLASSES, PRESETS, Enough, after_each_step, config_of, prepare
from vqprior.configs import Config
from vqprior.configs.schema import Precision
from vqprior.runtime import devices
from vqprior.runtime.codes import Level
from vqprior.runtime.launch import computes_bf16
from vqprior.runtime.pictures import to_float
from vqprior.runtime.processes import device_of_process
from vqprior.runtime.randomness import generator, hash64
from vqprior.sampling.choice import Choice, Sampling
from vqprior.sampling.networks import Networks
from vqprior.sampling.noise import GumbelNoise, Noise, gumbel_noise
from vqprior.sampling.sampler import map_of, rows
from vqprior.sampling.workspace import Workspace
from vqprior.stage1_vqvae.vqvae import VQVAE
from vqprior.stage2_prior.prior import Prior
from vqprior.stage2_prior.priors import build

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "mnist"
SHIPPED = ("mnist", "clothing64")
STAGES = ("stage1", "stage2")
MIB = 2**20
# How a step may be taken: a name, and the flags
WAYS = {
    "fp32": ("--precision", "no"),
    "tf32": ("--precision", "tf32"),
    "bf16": ("--precision", "bf16"),
    "bf16, recorded": ("--precision", "bf16", "--cuda_graph", "True"),
}
WITHOUT_BF16 = {"fp32": WAYS["fp32"], "fp16": ("--precision", "fp16")}  # T4, V100, Macs
FEW = 4  # images of a step that is hardly any arithmetic
LOOKED_AT = 3  # steps under the profiler, and as many under torch's debug mode for waits

QUICK = ("--data.size", "16", "16", "--data.margin", "0", "--data.crop", "0", "--inference_batch", "4")
QUICK_1 = (
    "--stage1.K",
    "8",
    "--stage1.D",
    "4",
    "--stage1.width",
    "8",
    "--stage1.block_width",
    "4",
    "--stage1.batch_size",
    "8",
)
QUICK_2 = (
    "--stage2.channels",
    "8",
    "--stage2.gated_pixelcnn.head",
    "8",
    "--stage2.layers",
    "2",
    "--stage2.batch_size",
    "8",
)


class Settings:
    """How much is measured."""

    def __init__(self, quick: bool, minutes: float):
        self.flags = (*QUICK, *QUICK_1, *QUICK_2) if quick else ()
        self.ways = {"fp32": WAYS["fp32"]} if quick else _ways_here()
        self.seconds, self.rounds = (0.2, 1) if quick else (1.5, 2)
        self.pictures = 48 if quick else 768
        self.batches = (2,) if quick else (16, 64, 256)
        self.repetitions = 2 if quick else 3
        self.models = SHIPPED[:1] if quick else SHIPPED  # whose samples are compared
        self.compared = 64 if quick else 4096  # pictures whose codes are compared
        self.until = time.perf_counter() + 60 * minutes


def _ways_here() -> dict[str, tuple[str, ...]]:
    """The ways that this device is made for."""
    return WAYS if computes_bf16(device_of_process()) else WITHOUT_BF16


# The device


def synchronize() -> None:
    """Wait for all that the device was given."""
    if device_of_process().type != "cpu":
        torch.accelerator.synchronize()


def is_cuda() -> bool:
    """Whether the device of this process is one of CUDA's."""
    return device_of_process().type == "cuda"


def output_of(*command: str) -> str | None:
    """What a program prints; None where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def about() -> dict[str, Any]:
    """Device, driver, versions and the commit."""
    device = device_of_process()
    found: dict[str, Any] = {
        "device": devices.name_of(device),
        "kind": str(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if is_cuda() else None,
        "driver": output_of("nvidia-smi", "--query-gpu=driver_version,power.limit", "--format=csv,noheader"),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "commit": output_of("git", "rev-parse", "HEAD"),
        "changed": bool(output_of("git", "status", "--porcelain")),
    }
    if is_cuda():
        properties = torch.cuda.get_device_properties(device)
        found["memory_mib"] = properties.total_memory / MIB
        found["capability"] = f"{properties.major}.{properties.minor}"
    return found


@contextmanager
def cleared() -> Iterator[None]:
    """Around a measurement: nothing of the one before is left on the device, and the peak begins anew."""
    gc.collect()
    if is_cuda():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield


def attempted(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a measurement found, or in words why there is nothing: one that fails must not lose the others."""
    try:
        return work()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"}


# Training


class Watch:
    """Called by a loop after each step; from the end of a warm-up on it counts steps.

    The warm-up is 5 steps, in which kernels are chosen and a step is recorded, or so many seconds if longer.
    """

    def __init__(self, seconds: float):
        self.seconds, self.steps, self.since = seconds, 0, -1
        self.began = time.perf_counter()

    def __call__(self) -> None:
        self.steps += 1
        if self.since < 0 and (self.steps < 5 or time.perf_counter() - self.began < self.seconds):
            return
        if self.since < 0:
            synchronize()
            self.began = time.perf_counter()
        self.since += 1
        self.after(self.since)

    def after(self, steps: int) -> None:
        """So many steps have been taken since the warm-up, 0 at its end."""


class Timed(Watch):
    """The mean seconds of a step."""

    took = 0.0

    def after(self, steps: int) -> None:
        if steps and time.perf_counter() - self.began > self.seconds:
            synchronize()
            self.took = (time.perf_counter() - self.began) / steps
            raise Enough


class LookedAt(Watch):
    """On CUDA: how long kernels run in a step, how many there are, and the waits that torch warns of."""

    def __init__(self, messages: list[warnings.WarningMessage]):
        super().__init__(seconds=0)
        kernels = {ProfilerActivity.CUDA} & supported_activities()
        self.profile = profile(activities=kernels or {ProfilerActivity.CPU})
        self.messages = messages

    def after(self, steps: int) -> None:
        if steps == 0:
            self.profile.start()
        elif steps == LOOKED_AT:
            synchronize()
            self.profile.stop()
            torch.cuda.set_sync_debug_mode("warn")
        elif steps == 2 * LOOKED_AT:
            torch.cuda.set_sync_debug_mode("default")
            raise Enough

    def figures(self) -> dict[str, Any]:
        """Means a step."""
        device = torch.autograd.DeviceType.CUDA
        rows = [row for row in self.profile.key_averages() if row.device_type == device]
        waits: dict[str, float] = {}
        for message in self.messages:
            if "called a synchronizing CUDA operation" in str(message.message):
                place = f"{Path(message.filename).name}:{message.lineno}"
                waits[place] = waits.get(place, 0) + 1 / LOOKED_AT
        return {
            "kernels_ms": sum(row.self_device_time_total for row in rows) / 1000 / LOOKED_AT,
            "kernels": sum(row.count for row in rows) / LOOKED_AT,
            "waits": waits,
        }


def with_batch(config: Config, stage: str, batch: int) -> Config:
    """The settings with another batch of a stage."""
    return replace(config, **{stage: replace(getattr(config, stage), batch_size=batch)})


def fitting(
    train: Callable[[Config], None],
    config: Config,
    stage: str,
    seconds: float,
) -> tuple[dict[str, Any], int]:
    """Figures of a loop at its batch, or at the largest half, quarter, ... that fits; and that batch."""
    batch = getattr(config, stage).batch_size
    while True:
        try:
            with cleared(), after_each_step(Timed(seconds)) as timed:
                train(with_batch(config, stage, batch))
        except torch.OutOfMemoryError:
            batch //= 2
            if not batch:
                raise
            continue
        figures = {"step_ms": 1000 * timed.took}
        if is_cuda():
            figures["allocated_mib"] = torch.cuda.max_memory_allocated() / MIB
            figures["reserved_mib"] = torch.cuda.max_memory_reserved() / MIB
        return figures, batch


def looked_at(train: Callable[[Config], None], config: Config) -> dict[str, Any]:
    """What the profiler and torch's debug mode see of a step."""
    with warnings.catch_warnings(record=True) as messages, cleared():
        warnings.simplefilter("always")
        try:
            with after_each_step(LookedAt(messages)) as watch:
                train(config)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return watch.figures()


def training(preset: str, stage: str, settings: Settings, folder: Path) -> Iterator[list[dict[str, Any]]]:
    """A row for each way to train a stage of a preset, after each measurement as far as they go."""
    base = config_of(preset, *settings.flags)
    train = prepare(folder, base, stage, CLASSES[preset], settings.pictures)
    rows = {name: {"preset": preset, "stage": stage, "way": name, "rounds": []} for name in settings.ways}
    for number in range(settings.rounds):
        for name, flags in settings.ways.items():
            row = rows[name]
            if "error" in row or (number and time.perf_counter() > settings.until):
                continue
            config = config_of(preset, *settings.flags, *flags)
            row |= attempted(lambda config=config, row=row: _one_round(train, config, stage, settings, row))
            if row["rounds"]:
                row |= _over_rounds(row)
            yield [*rows.values()]


def _one_round(
    train: Callable[[Config], None], config: Config, stage: str, settings: Settings, row: dict[str, Any]
) -> dict[str, Any]:
    """Measure once more; at the first time the batch that fits is found, and the step is looked at."""
    if "batch" in row:
        config = with_batch(config, stage, row["batch"])
    figures, batch = fitting(train, config, stage, settings.seconds)
    few, _ = fitting(train, with_batch(config, stage, min(batch, FEW)), stage, settings.seconds / 2)
    found = {"batch": batch, "rounds": [*row["rounds"], figures | {"few_ms": few["step_ms"]}]}
    if is_cuda() and not row["rounds"]:
        found["apart"] = attempted(lambda: looked_at(train, with_batch(config, stage, batch)))
    return found


def _over_rounds(row: dict[str, Any]) -> dict[str, Any]:
    """Medians over rounds, and what follows from them."""
    rounds = row["rounds"]
    medians = {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}
    medians["steps_per_second"] = 1000 / medians["step_ms"]
    medians["images_per_second"] = row["batch"] * medians["steps_per_second"]
    return medians


# Sampling and encoding


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes, the device's queue included."""
    synchronize()
    began = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - began


def in_turn(works: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Median seconds of each, measured in turn after two calls: the second may record what is replayed."""
    for work in (*works.values(), *works.values()):
        work()
    rounds = [{name: seconds(work) for name, work in works.items()} for _ in range(repetitions)]
    return {name: statistics.median(times[name] for times in rounds) for name in works}


def drawn(
    workspace: Workspace,
    prior: Prior,
    labels: Tensor | None,
    noise: Noise,
    *,
    in_full: bool = False,
) -> Tensor:
    """Code maps [B, h, w] of B maps with this noise, from the cache of the prior or by full forwards."""
    maps, height = len(noise(0, 1)), prior.level.height
    cache = workspace.cache(prior, labels, (), Choice(), maps=maps, in_full=in_full)
    return map_of(rows(cache, noise, Choice(), workspace.rows, height))


def replayed(workspace: Workspace, prior: Prior, labels: Tensor | None, noise: GumbelNoise) -> Tensor:
    """The same as they are drawn for users: on CUDA the second call records, and later ones replay."""
    return map_of(workspace.draw(prior, labels, (), noise, Choice(), maps=len(noise.hashed)))


@torch.no_grad()
def sampling(preset: str, batch: int, settings: Settings) -> dict[str, Any]:
    """Cached sampling of one batch beside one full forward, in fp32."""
    config, device, classes = config_of(preset, *settings.flags), device_of_process(), CLASSES[preset]
    torch.manual_seed(0)
    height, width = (pixels // config.stage1.factor for pixels in config.data.size)
    prior = build(config.stage2, [Level(config.stage1.K, height, width)], classes).to(device).eval()
    prior.requires_grad_(False).to(memory_format=torch.channels_last)
    codes = torch.randint(config.stage1.K, (batch, height, width), generator=generator(0)).to(device)
    labels = (torch.arange(batch) % classes).to(device) if classes else None
    noise = gumbel_noise(0, torch.arange(batch).to(device), prior.K)
    workspace = Workspace()
    with cleared():
        took = in_turn(
            {
                "forward": lambda: prior(codes, labels),
                "cached": lambda: drawn(workspace, prior, labels, noise),
                "recorded": lambda: replayed(workspace, prior, labels, noise),
            },
            settings.repetitions,
        )
    return {
        "preset": preset,
        "batch": batch,
        "images_per_second": batch / took["recorded"],
        "ms_a_code": 1000 * took["cached"] / (height * width),
        "recorded_ms_a_code": 1000 * took["recorded"] / (height * width),
        "forward_ms": 1000 * took["forward"],
        "cached_over_forward": took["recorded"] / took["forward"],
    }


@torch.no_grad()
def encoding(preset: str, settings: Settings) -> dict[str, Any]:
    """Pictures on the CPU to codes on the CPU, as `encode` does it, in IEEE fp32."""
    config, device = config_of(preset, *settings.flags), device_of_process()
    torch.manual_seed(0)
    model = VQVAE(config).to(device, memory_format=torch.channels_last).eval()
    batch = config.inference_batch
    pictures = torch.randint(256, (batch, config.data.channels, *config.data.size), dtype=torch.uint8)
    encode = lambda: model.encode(to_float(pictures, device, channels_last=True))[0].codes.cpu()
    with cleared(), devices.convolutions(device, "no"):
        took = in_turn({"encode": encode}, settings.repetitions)["encode"]
    return {"preset": preset, "batch": batch, "images_per_second": batch / took}


# Checks


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
        networks = Networks.from_run(ROOT / "models" / model, device)
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


# All of it


def measure(presets: tuple[str, ...], settings: Settings) -> Iterator[dict[str, Any]]:
    """Every figure; what failed is in words where its figures would be. All that there is so far, after each
    part."""
    found: dict[str, Any] = {"about": about(), "training": [], "sampling": [], "encoding": []}
    found["checks"] = attempted(self_checks)
    found["ways"] = attempted(lambda: ways_agree(settings.models))
    found["codes"] = attempted(lambda: {"rows": codes_equal_the_cpus(settings.compared)})
    yield found
    for preset in presets:
        found["encoding"].append({"preset": preset} | attempted(lambda p=preset: encoding(p, settings)))
        for batch in settings.batches:
            row = attempted(lambda p=preset, b=batch: sampling(p, b, settings))
            found["sampling"].append({"preset": preset, "batch": batch} | row)
        yield found
    for preset, stage in product(presets, STAGES):
        before = found["training"]
        with tempfile.TemporaryDirectory() as folder:
            for rows in training(preset, stage, settings, Path(folder)):
                yield found | {"training": [*before, *rows]}
        found["training"] = [*before, *rows]


def write(found: dict[str, Any] | list, markdown: str, out: Path) -> None:
    """Write OUT.json and OUT.md."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(found, indent=2))
    out.with_suffix(".md").write_text(markdown + "\n")


def written(found: dict[str, Any] | list, markdown: str, out: Path) -> None:
    """Write OUT.json and OUT.md, and print the latter."""
    write(found, markdown, out)
    print(markdown)


def main(argv: list[str] | None = None) -> None:
    """Measure or count, print and write."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="files to write, without their ending")
    parser.add_argument("--presets", nargs="+", choices=CLASSES, help="some are counted alone")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps or auto")
    parser.add_argument("--minutes", type=float, default=8, help="then only what has no figure is measured")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all of it runs")
    parser.add_argument("--memory", action="store_true", help="count memory instead")
    parser.add_argument("--operations", action="store_true", help="count operations and waits instead")
    parser.add_argument("--work", action="store_true", help="count arithmetic instead")
    options = parser.parse_args(argv)
    all_of_them = options.memory or options.work
    presets = tuple(options.presets or (CLASSES if all_of_them else PRESETS))
    if not all_of_them and (others := [preset for preset in presets if preset not in PRESETS]):
        parser.error(
            f"{', '.join(others)}: counted by --memory and --work alone; measured are {', '.join(PRESETS)}"
        )
    if options.memory:
        from benchmarks import gpu_memory

        rows = gpu_memory.table(presets)
        return written(rows, gpu_memory.as_markdown(rows), options.out)
    if options.work:
        from benchmarks import gpu_work

        rows = gpu_work.table(presets)
        return written(rows, gpu_work.as_markdown(rows), options.out)
    if options.operations:
        from benchmarks import gpu_operations

        rows = gpu_operations.table(presets)
        return written(rows, gpu_operations.as_markdown(rows), options.out)
    with devices.choose(options.device):
        for found in measure(presets, Settings(options.quick, options.minutes)):
            write(found, as_markdown(found), options.out)  # whoever has no more time has what was measured
    print(options.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
