"""Steps that are recorded once and replayed, with a stand-in for CUDA's graphs that records what the CPU
does."""

from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
import torch._dynamo  # what optimizers import lazily must not meet a replaced torch.Event
from safetensors.torch import load_file

from tests.conftest import TINY, write_pictures
from tests.recorder import Recorder
from vqprior.configs import Config, UserError
from vqprior.runtime import graph


def record(work, inputs):
    """What `graph.record` does on CUDA: the work is noted and not done."""
    kept = [(tensor, tensor.clone()) for tensor in State.of]
    with Recorder() as recorder:
        outputs = work(*inputs)
    with torch.no_grad():
        for tensor, value in kept:
            tensor.copy_(value)
    return lambda: torch.no_grad()(recorder.replay)(), outputs


class State:
    """The tensors that a recording must not change: all that is trained."""

    of: ClassVar[list[torch.Tensor]] = []


@pytest.fixture
def stand_in(monkeypatch):
    """The CPU is treated like a CUDA device, and graphs are recorded on it."""
    from vqprior.runtime import feed, guard, optimizer

    for module in (guard, optimizer, feed):
        monkeypatch.setattr(module, "runs_ahead", lambda device: True)
    monkeypatch.setattr(feed, "has_room", lambda device, size: False)
    monkeypatch.setattr(feed, "fed", lambda batches, device: iter(batches))
    for module in ("vqprior.stage1_vqvae.train", "vqprior.stage2_prior.train"):
        monkeypatch.setattr(f"{module}.fed", lambda batches, device: iter(batches))
    monkeypatch.setattr("vqprior.runtime.loader.has_room", lambda device, size: False)
    event = SimpleNamespace(record=lambda stream: None, synchronize=lambda: None)
    monkeypatch.setattr(torch, "Event", lambda device: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "a stream")
    monkeypatch.setattr(graph, "apart", lambda work, given, stream: work(*given))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: "a stream")
    monkeypatch.setattr(graph, "record", record)


def test_a_recorded_function_is_replayed_with_new_inputs(monkeypatch):
    monkeypatch.setattr(graph, "apart", lambda work, given, stream: work(*given))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: "a stream")
    monkeypatch.setattr(graph, "record", record)
    total, calls = torch.zeros(3), []
    State.of = [total]

    def work(x, nothing, factor):
        calls.append(1)
        total.add_(x * factor)
        return (total * 2,)

    recorded = graph.Recorded(work)
    for number in range(1, 8):
        (out,) = recorded(torch.full((3,), float(number)), None, torch.tensor(0.5))
        assert torch.equal(out, torch.full((3,), float(sum(range(1, number + 1)))))
    assert len(calls) == graph.Recorded.WARM_UP + 1


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--stage1.accumulate", 2, "--stage2.accumulate", 2, "--stage1.average", 0.9],
        ["--stage2.prior", "pixelsnail", "--stage2.layers", 3],
        ["--stage2.prior", "transformer", "--stage2.channels", 16],
    ],
    ids=["plain", "accumulate", "pixelsnail", "transformer"],
)
def test_a_run_with_recorded_steps_is_one_with_plain_steps(tmp_path, command, stand_in, monkeypatch, flags):
    """Rates, draws, labels and dropout change with the step; whatever were baked into the record would
    differ."""
    pictures = write_pictures(tmp_path / "pictures")
    flags = [*flags, "--stage1.steps", 9, "--stage2.steps", 9]
    flags += ["--stage1.codebook.restart", 0.5, "--stage2.label_dropout", 0.3]
    flags += [
        "--stage1.save_every",
        9,
        "--stage1.eval_every",
        9,
        "--stage2.save_every",
        9,
        "--stage2.eval_every",
        9,
    ]
    base = ["run", "folder", *TINY, *flags, "--data.root", pictures]
    code, printed = command(*base, "--out", tmp_path / "plain")
    assert code == 0, printed

    real = graph.recorded

    def recorded(work, config, accelerator):
        cells = dict(
            zip(work.__code__.co_freevars, (cell.cell_contents for cell in work.__closure__), strict=True)
        )
        model, optimizer, average = (cells[name] for name in ("model", "optimizer", "average"))

        class Watched(graph.Recorded):
            def __call__(self, *given):
                moments = [x for state in optimizer.state.values() for x in state.values()]
                rates = [group["lr"] for group in optimizer.param_groups]
                State.of = [
                    *model.state_dict().values(),
                    *moments,
                    *rates,
                    *(average.tensors.values() if average else ()),
                ]
                return super().__call__(*given)

        assert isinstance(
            real(work, config, SimpleNamespace(device=torch.device("cuda"), num_processes=1, scaler=None)),
            graph.Recorded,
        )
        return Watched(work)

    for module in ("vqprior.stage1_vqvae.train", "vqprior.stage2_prior.train"):
        monkeypatch.setattr(f"{module}.recorded", recorded)
    code, printed = command(*base, "--out", tmp_path / "recorded", "--cuda_graph", True)
    assert code == 0, printed
    for stage in ("stage1", "stage2"):
        files = sorted((tmp_path / "plain" / stage / "step-00000009").glob("*.safetensors"))
        assert len(files) >= 2
        for file in files:
            plain, replayed = (
                load_file(file),
                load_file(tmp_path / "recorded" / stage / file.parent.name / file.name),
            )
            assert all(torch.equal(value, replayed[name]) for name, value in plain.items()), file


@pytest.mark.parametrize(
    ("device", "processes", "scaler", "settings", "words"),
    [
        ("cpu", 1, None, {}, "the device is cpu, and it takes one CUDA GPU, or leave out --cuda_graph"),
        ("cuda", 2, None, {}, "there are 2 processes, and it takes one"),
        ("cuda", 1, object(), {}, "precision fp16 has a loss scaler"),
        ("cuda", 1, None, {"compile": True}, "leave out --compile"),
    ],
)
def test_where_a_step_cannot_be_recorded_it_is_refused(device, processes, scaler, settings, words):
    accelerator = SimpleNamespace(device=torch.device(device), num_processes=processes, scaler=scaler)
    with pytest.raises(UserError, match=words):
        graph.recorded(lambda: (), Config(cuda_graph=True, **settings), accelerator)
