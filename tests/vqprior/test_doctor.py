"""`vqprior doctor` names what is there, and what is missing with the line that installs it."""

from importlib import metadata

import pytest
import torch

from vqprior import doctor
from vqprior.doctor import Requirement

NEEDED = [Requirement("torch", "2.9.1", ""), Requirement("no-such-package", "1.0", "report")]


def test_versions_devices_and_the_precision_are_named(command):
    code, printed = command("doctor", "--device", "cpu")
    assert code == 0, printed
    assert f"torch {metadata.version('torch')}" in printed and "Python 3." in printed
    assert "--device cpu takes cpu, on which --precision auto is" in printed
    assert (
        f"{torch.get_num_threads()} thread" in printed
        and "1 threads" not in printed
        and "GB free in" in printed
    )
    assert len(printed.splitlines()) <= 24 and max(map(len, printed.splitlines())) <= 160


@pytest.mark.parametrize(("has", "words"), [(True, "bf16 (it has"), (False, "fp32 (no instructions")])
def test_what_auto_takes_follows_the_instructions(command, monkeypatch, has, words):
    monkeypatch.setattr("vqprior.runtime.launch.computes_bf16", lambda device: has)
    assert f"--precision auto is {words}" in command("doctor", "--device", "cpu")[1]


def test_a_missing_extra_is_named_with_what_installs_it(command, monkeypatch):
    monkeypatch.setattr(doctor, "requirements", lambda package: NEEDED)
    code, printed = command("doctor", "--device", "cpu")
    assert code == 0 and "no-such-package is missing: pip install 'vqprior[report]'" in printed


@pytest.mark.parametrize(
    ("need", "words"),
    [
        (Requirement("no-such-package", "1.0", ""), "no-such-package is missing"),
        (Requirement("torch", "99.0", ""), "older than 99.0"),
    ],
)
def test_what_nothing_works_without_is_an_error(command, monkeypatch, need, words):
    monkeypatch.setattr(doctor, "requirements", lambda package: [need])
    code, printed = command("doctor")
    assert code == 2 and words in printed and "pip install -e ." in printed
    assert "--precision" not in printed  # torch may be what is missing


def test_requirements_are_read_as_pip_writes_them(monkeypatch):
    lines = ["torch>=2.9.1", 'mlxtend>=0.23; extra == "demo"', "vqprior[demo]; extra == 'dev'", "pillow"]
    monkeypatch.setattr(metadata, "requires", lambda package: lines)
    torch_, mlxtend, pillow = doctor.requirements("vqprior")
    assert torch_ == ("torch", "2.9.1", "") and mlxtend == ("mlxtend", "0.23", "demo")
    assert pillow == ("pillow", "0", "")


def test_versions_are_compared_as_numbers(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "2.10.0+cpu")
    assert Requirement("torch", "2.9.1", "").problem() is None
    assert Requirement("torch", "2.11", "").problem() == "torch is 2.10.0+cpu, older than 2.11"


def test_every_extra_of_users_has_a_purpose():
    assert {need.extra for need in doctor.requirements("vqprior")} - {"", "dev"} <= set(doctor.EXTRAS)


def test_it_takes_no_run(command):
    code, printed = command("doctor", "runs/x")
    assert code == 2 and "takes nothing, but was given 'runs/x'" in printed
