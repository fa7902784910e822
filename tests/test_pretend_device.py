"""Whole commands on a pretend GPU and a pretend Mac: right as on the CPU, few waits, few operations."""

import json
import pickle
import shutil
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.gpu.operations import count
from tests.conftest import SHARPER, TINY
from tests.pretend_device import DeviceTensor, pretend
from vqprior import Generator
from vqprior.cli import main
from vqprior.configs.schema import GatedPixelCNN, Stage2
from vqprior.runtime import lock, processes, run_state
from vqprior.runtime.codes import Level
from vqprior.runtime.processes import Share
from vqprior.stage2_prior.gated_pixelcnn.model import PixelCNN

# A run on CUDA against the CPU's, the largest difference of any number of the checkpoints. With torch's own
# AdamW in place of the fused one, whose products are rounded in another order, they are equal bit for bit.
FUSED_TOLERANCE = 1e-5

# Waits and operations of a training step at most, as counted; whoever saves some lowers them
MOST_WAITS = 1
MOST_OPERATIONS = {
    ("mnist", "stage1"): 202,
    ("mnist", "stage2"): 448,
    ("celeba64", "stage1"): 214,
    ("celeba64", "stage2"): 706,
    ("imagenet128", "stage1"): 256,
    ("imagenet128", "stage2"): 964,
}


def completed(*arguments: object) -> None:
    """Run a command in this process, to its end."""
    try:
        assert main([str(argument) for argument in arguments]) == 0
    finally:
        lock.release_all()


def replace_everywhere(monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    """Replace a function in every module of the project that has imported it."""
    modules = [module for module in sys.modules.values() if module.__name__.startswith("vqprior.")]
    for module in modules:
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)


def differences(run: Path, expected: Path) -> dict[str, float]:
    """The largest difference of each tensor of all checkpoints, where there is any; no step was skipped."""
    found = {}
    manifests = [*run.glob("stage*/step-*/manifest.json")]
    assert manifests
    assert all(json.loads(file.read_text())["meta"]["guard"]["skipped"] == 0 for file in manifests)
    for file in sorted(expected.glob("stage*/step-*/*.safetensors")):
        ours, theirs = load_file(run / file.relative_to(expected)), load_file(file)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            if not torch.equal(ours[name], value):
                gap = (ours[name].double() - value.double()).abs().max().item()
                found[f"{file.relative_to(expected)} {name}"] = gap
    return found


def same_bytes(run: Path, expected: Path, *patterns: str) -> bool:
    """Whether all files of these patterns are the same."""
    files = [file for pattern in patterns for file in expected.glob(pattern)]
    assert files
    return all((run / file.relative_to(expected)).read_bytes() == file.read_bytes() for file in files)


OUTCOMES = ("codes/*.npy", "samples/samples.npz")


@pytest.fixture(scope="module")
def flags(finished_run) -> list[object]:
    return [*TINY, "--data.root", finished_run.parent / "pictures"]


@pytest.fixture(scope="module")
def cuda_run(flags, tmp_path_factory) -> Path:
    """A finished tiny run on pretend CUDA; tests must not change it."""
    run = tmp_path_factory.mktemp("cuda") / "run"
    with pretend("cuda"):
        completed("run", "folder", *flags, "--out", run)
    return run


@pytest.fixture(scope="module")
def mps_run(flags, tmp_path_factory) -> Path:
    """The same on a pretend Mac."""
    run = tmp_path_factory.mktemp("mps") / "run"
    with pretend("mps"):
        completed("run", "folder", *flags, "--out", run)
    return run


# The device itself


def test_tensors_say_where_they_are_and_are_computed_by_the_cpu():
    numbers = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with pretend("cuda"):
        there = numbers.to("cuda")
        assert there.device == torch.device("cuda:0")
        assert there.is_cuda and not there.is_cpu and not there.is_meta
        assert torch.equal((there @ there.T).softmax(1).cpu(), (numbers @ numbers.T).softmax(1))
        assert torch.zeros(2, device="cuda").device.type == (there + torch.tensor(1.0)).device.type == "cuda"
        assert there.to("cuda:0") is there


@pytest.mark.parametrize(
    ("kind", "wrong", "words"),
    [
        ("cuda", lambda x: x + torch.ones(3), "expected all tensors on one device"),
        ("cuda", lambda x: x.numpy(), "copy it to the CPU first"),
        ("cuda", lambda x: np.asarray(x), "copy it to the CPU first"),
        ("cuda", lambda x: pickle.dumps(x), "pickled"),
        ("cuda", lambda x: x.pin_memory(), "cannot pin"),
        ("mps", lambda x: x.double(), "float64"),
        ("mps", lambda x: torch.zeros(2, dtype=torch.float64, device="mps"), "float64"),
        ("mps", lambda x: torch.ones(3).to("mps", non_blocking=True), "asynchronous"),
        ("mps", lambda x: x.copy_(torch.ones(3), non_blocking=True), "asynchronous"),
    ],
)
def test_what_a_real_device_refuses_is_refused(kind, wrong, words):
    with pretend(kind), pytest.raises((RuntimeError, TypeError), match=words):
        wrong(torch.ones(3).to(kind))


@pytest.mark.parametrize(
    ("act", "waits"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: torch.ones(3).to("cuda"), 1),
        (lambda x: torch.ones(3).to("cuda", non_blocking=True), 1),  # not from pinned memory
        (lambda x: torch.ones(3).pin_memory().to("cuda", non_blocking=True), 0),
        (lambda x: torch.ones(4).pin_memory()[1:].to("cuda", non_blocking=True), 0),
        (lambda x: torch.empty(3, pin_memory=True).copy_(x, non_blocking=True), 0),
        (lambda x: torch.empty(3).copy_(x, non_blocking=True), 1),
        (lambda x: x.to("cpu", non_blocking=True), 0),  # torch takes pinned memory for it
        (lambda x: torch.tensor([1, 2], device="cuda"), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: x[torch.tensor([0])], 1),
        (lambda x: x.index_select(0, torch.zeros(1, dtype=torch.int64, device="cuda")), 0),
        (lambda x: x.nonzero(), 1),
        (lambda x: torch.accelerator.synchronize(), 1),
        (lambda x: torch.cuda.current_stream().synchronize(), 1),
        (lambda x: x.relu().softmax(0), 0),
    ],
)
def test_what_makes_the_host_wait_is_counted(act, waits):
    with pretend("cuda") as gpu:
        x = torch.ones(3).to("cuda")
        gpu.reset()
        act(x)
        assert gpu.waits.total() == waits
        assert all("test_pretend_device.py:" in place for place in gpu.waits)


def test_an_asynchronous_copy_is_garbage_until_its_event_was_waited_for():
    with pretend("cuda") as gpu:
        x = torch.ones(3).to("cuda")
        gpu.reset()
        early, event = x.to("cpu", non_blocking=True), torch.cuda.Event()
        event.record()
        late = (x + 1).to("cpu", non_blocking=True)
        assert early.isnan().all() and late.isnan().all() and gpu.waits.total() == 0
        event.synchronize()
        assert early.tolist() == [1, 1, 1] and late.isnan().all()
        x.sum().item()
        assert late.tolist() == [2, 2, 2]
        assert [place.split()[0] for place in gpu.waits] == ["synchronize", "_local_scalar_dense"]


def test_operations_are_counted_without_views_and_foreach_ones_by_layout():
    with pretend("cuda") as gpu:
        kernel = torch.ones(4, 3, 2, 2).to("cuda")
        other = kernel.to(memory_format=torch.channels_last)
        gpu.reset()
        (kernel.view(4, 12).T + 1).relu()
        assert dict(gpu.operations) == {"add": 1, "relu": 1}
        gpu.reset()
        torch._foreach_add_([kernel] * 5, [kernel] * 5)
        assert dict(gpu.operations) == {"_foreach_add_": 1}
        gpu.reset()
        torch._foreach_add_([kernel] * 5, [kernel] * 4 + [other])
        assert dict(gpu.operations) == {"_foreach_add_": 5}  # CUDA leaves its fast way for the whole list


def trained(device: str, **how: Any) -> Tensor:
    """The weights after three clipped steps of AdamW."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).to(device)
    optimizer, x = torch.optim.AdamW(model.parameters(), lr=0.1, **how), torch.randn(7, 4).to(device)
    for _ in range(3):
        F.mse_loss(model(x), x[:, :2]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat([p.detach().flatten().cpu() for p in model.parameters()])


def test_optimizers_and_clipping_take_their_fast_ways_and_compute_what_the_cpu_computes():
    with pretend("cuda") as gpu:
        plain = trained("cuda")
        assert {"_foreach_norm", "_foreach_mul_", "_foreach_addcdiv_"} <= gpu.operations.keys()
        assert "addcdiv_" not in gpu.operations
        gpu.reset()
        fused = trained("cuda", fused=True)
        assert gpu.operations["_fused_adamw_"] == 3
    assert torch.equal(plain, trained("cpu")) and torch.equal(fused, trained("cpu", fused=True))


def test_a_fused_optimizer_skips_by_a_tensor_and_refuses_moments_of_another_layout():
    with pretend("cuda"):
        weight = nn.Parameter(torch.ones(2, 3, 2, 2).to("cuda", memory_format=torch.channels_last))
        rate = torch.tensor(0.1, device="cuda")
        optimizer = torch.optim.AdamW([weight], lr=rate, fused=True, capturable=True)
        weight.grad = torch.ones_like(weight)
        for found_inf, moved in ((1.0, False), (0.0, True)):
            optimizer.found_inf = torch.tensor(found_inf, device="cuda")
            optimizer.step()
            assert ((weight != 1).any().item(), optimizer.state[weight]["step"].item()) == (
                moved,
                float(moved),
            )
        optimizer.state[weight]["exp_avg"] = optimizer.state[weight]["exp_avg"].contiguous()
        with pytest.raises(RuntimeError, match="layout"):
            optimizer.step()


def test_autocast_computes_in_16_bits_and_threads_see_the_device():
    found = []
    with pretend("cuda"):
        thread = threading.Thread(target=lambda: found.append(torch.zeros(3, device="cuda").add(1)))
        thread.start()
        thread.join()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            found.append(F.linear(found[0], torch.ones(2, 3, device="cuda")))
            found.append(found[1].float().log_softmax(0))
        assert [x.dtype for x in found] == [torch.float32, torch.bfloat16, torch.float32]
        assert all(isinstance(x, DeviceTensor) for x in found)


# Runs


def test_a_run_is_that_of_the_cpu_up_to_the_rounding_of_the_fused_optimizer(finished_run, cuda_run):
    gaps = differences(cuda_run, finished_run)
    assert max(gaps.values(), default=0) <= FUSED_TOLERANCE, gaps


def test_a_run_with_the_cpus_optimizer_is_its_run_bit_for_bit(finished_run, flags, tmp_path, monkeypatch):
    """All tensors of all checkpoints, the code maps and the samples."""
    replace_everywhere(monkeypatch, "runs_ahead", lambda device: False)
    with pretend("cuda"):
        completed("run", "folder", *flags, "--out", tmp_path / "run")
    assert not differences(tmp_path / "run", finished_run)
    assert same_bytes(tmp_path / "run", finished_run, *OUTCOMES)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_resumed_run_is_the_unbroken_one_and_as_fast(stage, cuda_run, tmp_path, monkeypatch):
    """Stopped after 2 of 4 steps: same bits, and moments with the strides of their weights."""
    optimizers, restore = [], run_state.restore_moments

    def remembered(optimizer: Any, *arguments: Any) -> None:
        optimizers.append(optimizer.optimizer)
        restore(optimizer, *arguments)

    monkeypatch.setattr(run_state, "restore_moments", remembered)
    shutil.copytree(cuda_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / stage / "step-00000004")
    with pretend("cuda") as gpu:
        completed({"stage1": "train-vqvae", "stage2": "train-prior"}[stage], tmp_path / "run")
        (optimizer,) = optimizers
        moments = ("exp_avg", "exp_avg_sq")
        layouts = [(p.stride(), *(s[m].stride() for m in moments)) for p, s in optimizer.state.items()]
        read_back = [place for place in gpu.waits if place.startswith("_local_scalar_dense adam")]
    assert not differences(tmp_path / "run", cuda_run)
    assert all(len(set(strides)) == 1 for strides in layouts) and not read_back
    assert any(torch.empty(p.shape).stride() != p.stride() for p in optimizer.state)  # channels_last


def everything(run: Path, out: Path, pictures: Path) -> list[list[object]]:
    """Commands on a finished run, with the options that reach the device."""
    picture = ["--image", pictures / "ant" / "picture0.png", "--hide", "lower half"]
    drawing = ["--temperature", 0.8, "--top_k", 5, "--top_p", 0.9]
    return [
        ["sample", run, "--images", 5, "--seed", 1, "--label", "ant", *drawing, "--out", out / "samples"],
        [
            "complete",
            run,
            *picture,
            "--label",
            "ant",
            "--draws",
            4,
            "--images",
            2,
            *drawing,
            "--out",
            out / "done",
        ],
        ["evaluate", run, "--classifier_steps", 2],
        ["report", run],
        ["encode", run, "--pictures", pictures, "--out", out / "encoded"],
        ["score", run, "--pictures", pictures, "--quantile", 0.5, "--out", out / "scored"],
        ["export", run, "--out", out / "exported"],
    ]


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_every_command_ends_well(kind, request, finished_run, tmp_path):
    shutil.copytree(request.getfixturevalue(f"{kind}_run"), tmp_path / "run")
    with pretend(kind):
        for arguments in everything(tmp_path / "run", tmp_path, finished_run.parent / "pictures"):
            completed(*arguments)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["stage2"]["bits_per_code"] > 0
    assert (tmp_path / "run" / "report.html").is_file() and (tmp_path / "encoded" / "codes.npz").is_file()


@pytest.mark.parametrize(
    "flags_besides",
    [
        "--precision bf16 --stage1.quantizer gradient --data.flip True --data.copies 1".split(),
        [
            "--precision",
            "fp16",
            "--stage1.accumulate",
            "2",
            "--stage2.accumulate",
            "2",
            "--stage1.average",
            "0.9",
        ],
        [
            "--stage1.likelihood",
            "logistic",
            "--stage1.codes_per_position",
            "2",
            "--stage2.label_dropout",
            "0.2",
            "--stage2.dropout",
            "0.1",
            "--sample.guidance",
            "2",
        ],
        ["--data.labels", "False", "--channels_last", "False", "--stage1.codebook.normalize", "True"],
        [*SHARPER, "--precision", "bf16", "--stage1.accumulate", "2"],
    ],
    ids=["bf16", "fp16", "logistic", "unconditional", "sharper"],
)
def test_a_run_under_other_settings_ends_well(flags_besides, flags, tmp_path):
    with pretend("cuda"):
        completed("run", "folder", *flags, *flags_besides, "--out", tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["stage1"]["mse"] > 0


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_generator_gives_on_each_device_what_it_gives_on_the_cpu(kind, finished_run):
    """`tests/sampling/test_devices.py` has every option; here it is loaded from a run."""

    def images(device: str) -> np.ndarray:
        generator = Generator.from_run(finished_run, device)
        return generator.sample(labels=["ant", "bee"], temperature=[1.0, 0.7], top_p=0.9, seed=3)

    with pretend(kind):
        found = images(kind)
    assert np.array_equal(found, images("cpu"))


# Several processes


class Collectives:
    """A second process that has the same to say, as far as the collectives can tell."""

    def __init__(self, kind: str):
        self.kind, self.tensors, self.objects = kind, 0, 0

    def check(self, tensor: Tensor) -> Tensor:
        assert isinstance(tensor, DeviceTensor) and tensor.device.type == self.kind and tensor.is_contiguous()
        self.tensors += 1
        return tensor

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        return self.check(tensor) * 1

    def gather(self, tensor: Tensor) -> Tensor:
        return torch.cat([self.check(tensor)] * 2)

    def gather_object(self, items: list) -> list:
        self.broadcast_object_list(items)
        return items * 2

    def broadcast_object_list(self, items: list) -> None:
        pickle.dumps(items)
        self.objects += 1

    def all_reduce(self, tensor: Tensor, op: Any = None) -> None:
        self.check(tensor)


@pytest.fixture
def collectives(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Collectives]]:
    """Two processes, as far as the project can see; what the other one would do in turn is done here too."""

    def install(kind: str) -> Collectives:
        fake = Collectives(kind)
        real, in_turn = processes.state, processes.each_in_turn

        def state() -> types.SimpleNamespace:
            return types.SimpleNamespace(
                device=real().device,
                num_processes=2,
                process_index=0,
                is_main_process=True,
                wait_for_everyone=lambda: None,
            )

        def each_in_turn(*arguments: Any) -> None:
            for rank in range(2):
                with monkeypatch.context() as patch:
                    patch.setattr(processes, "share_of_process", lambda rank=rank: Share(rank, 2))
                    in_turn(*arguments)

        monkeypatch.setattr(processes, "state", state)
        replace_everywhere(monkeypatch, "each_in_turn", each_in_turn)
        for name in ("reduce", "gather", "gather_object", "broadcast_object_list"):
            monkeypatch.setattr(processes, name, getattr(fake, name))
        monkeypatch.setattr(torch.distributed, "all_reduce", fake.all_reduce)
        return fake

    yield install


def test_collectives_are_given_contiguous_tensors_of_the_device(collectives, flags, tmp_path):
    """On CUDA; several processes on a Mac's one GPU are refused."""
    with pretend("cuda"):
        fake = collectives("cuda")
        completed("run", "folder", *flags, "--out", tmp_path / "run")
        in_run = fake.tensors
        completed("evaluate", tmp_path / "run", "--classifier_steps", 2)
    assert in_run > 8 and fake.tensors > in_run and fake.objects > 10


# Speed, as far as counting goes


@pytest.mark.parametrize(("preset", "stage"), MOST_OPERATIONS, ids=lambda word: word)
def test_a_step_waits_and_launches_no_more_than_it_must(preset, stage):
    found = count(preset, stage)
    assert sum(found.waits.values()) <= MOST_WAITS, found.waits
    assert sum(found.operations.values()) <= MOST_OPERATIONS[preset, stage], found.operations


@pytest.mark.parametrize("command", ["train-vqvae", "train-prior"])
def test_a_step_after_a_resume_waits_and_launches_as_often(command, cuda_run, flags, tmp_path):
    """The difference of runs of 8 and 12 steps, begun anew and from a checkpoint after 4."""
    stage, *other = {"train-vqvae": ("stage1", "codes", "stage2"), "train-prior": ("stage2",)}[command]

    def counts(steps: int, begun: int) -> tuple[int, int]:
        run = tmp_path / f"{steps} from {begun}"
        shutil.copytree(cuda_run, run, ignore=shutil.ignore_patterns(stage, *other))
        often = [f"--{stage}.{name}" for name in ("log_every", "eval_every", "save_every")]
        arguments = [command, "folder", *flags, "--out", run]
        arguments += [often[0], 100, often[1], 100, often[2], 4, f"--{stage}.learning_rate", 1e-3]
        with pretend("cuda") as gpu:
            if begun:
                completed(*arguments, f"--{stage}.steps", begun)
            gpu.reset()
            completed(*arguments, f"--{stage}.steps", steps)
            return gpu.waits.total(), gpu.operations.total()

    def difference(begun: int) -> tuple[int, int]:
        return tuple(long - short for long, short in zip(counts(12, begun), counts(8, begun), strict=True))

    assert difference(begun=4) == difference(begun=0)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_prior_keeps_16_bits_for_its_backward_under_autocast(classes):
    """All but the parameters and their casts' sources, and dropout's factors: two of them a layer and map."""
    settings = Stage2(channels=8, layers=3, gated_pixelcnn=GatedPixelCNN(head=8), dropout=0.5)
    model, kept = PixelCNN(settings, Level(5, 6, 6), classes), []
    factors = model.dropout(model.dropout_keys(0, torch.arange(2)))
    own = {parameter.untyped_storage().data_ptr() for parameter in [*model.parameters(), factors]}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.float32 and tensor.untyped_storage().data_ptr() not in own:
            kept.append(tuple(tensor.shape))
        return tensor

    codes, labels = (
        torch.zeros(2, 6, 6, dtype=torch.int64),
        torch.zeros(2, dtype=torch.int64) if classes else None,
    )
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        logits = model(codes, labels, dropped=factors)
    assert logits.requires_grad and not kept
