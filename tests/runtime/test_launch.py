"""The precision `auto`: bf16 where a device computes it, and for a run always what it began with."""

from types import MappingProxyType

import pytest
import torch

from tests.conftest import TINY
from vqprior import configs
from vqprior.configs import Config
from vqprior.runtime.launch import computes_bf16, settled

CPU = torch.device("cpu")


@pytest.fixture
def cpu_with(monkeypatch):
    """Make this a CPU with these instructions."""

    def make(*names: str) -> None:
        found = MappingProxyType({"avx2": True, "avx512_bf16": False, **dict.fromkeys(names, True)})
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)

    return make


@pytest.mark.parametrize(
    ("instruction", "fast"), [("avx512_f", False), ("avx512_bf16", True), ("amx_bf16", True), ("bf16", True)]
)
def test_auto_is_bf16_where_there_are_instructions_for_it(instruction, fast, cpu_with):
    cpu_with(instruction)
    assert computes_bf16(CPU) is fast
    assert settled(Config(precision="auto"), CPU).precision == ("bf16" if fast else "no")
    for given in ("no", "bf16"):
        assert settled(Config(precision=given), CPU).precision == given


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator, which decides")
def test_a_run_keeps_the_precision_it_began_with(cpu_with, pictures, tmp_path, command):
    """Begun on a CPU without bf16, it goes on in fp32 on one that has it; and a stored bf16 is kept, with a
    warning."""
    asked = ["folder", *TINY, "--data.root", pictures, "--precision", "auto"]
    stored = lambda name: configs.parse(tmp_path / name / "config.yaml", []).precision
    for name, first, then, expected in (("a", [], ["avx512_bf16"], "no"), ("b", ["avx512_bf16"], [], "bf16")):
        run = ["train-vqvae", *asked, "--out", tmp_path / name]
        cpu_with(*first)
        assert command(*run, "--stage1.steps", 2)[0] == 0 and stored(name) == expected
        cpu_with(*then)
        code, printed = command(*run, "--stage1.steps", 4)
        assert code == 0 and stored(name) == expected, printed
        assert ("emulated" in printed) is (name == "b"), printed
