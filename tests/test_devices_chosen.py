"""`--device` on every command and in Python: each word, each refusal, and what fp32 means there. GPUs are
made up."""

import json
import os
import threading
import types

import pytest
import torch
from accelerate.state import AcceleratorState

from tests.conftest import TINY
from vqprior import Generator, Tokenizer, cli, pipeline
from vqprior.configs import Config
from vqprior.configs.errors import UserError
from vqprior.runtime import devices, launch, processes

LAUNCHER = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "ACCELERATE_USE_CPU",
    "ACCELERATE_TORCH_DEVICE",
)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher; and accelerate, and what fp32 means, are as they were afterwards."""
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processes, "_begun_with", devices.AUTO)
    conv, matmul = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    yield
    torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision = conv, matmul
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def machine(monkeypatch):
    """Make this a machine with so many GPUs, or a Mac, seen by one of so many processes."""

    def make(
        gpus: int = 0, *, mps: bool = False, processes: int = 1, rank: int = 0, capability: tuple = (9, 0)
    ) -> None:
        properties = lambda device: types.SimpleNamespace(uuid=f"GPU-{torch.device(device).index}")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
        monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        if processes > 1:
            for name, value in (("RANK", rank), ("LOCAL_RANK", rank)):
                monkeypatch.setenv(name, str(value))
            for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
                monkeypatch.setenv(name, str(processes))

    return make


MACHINES = {"CPU": {}, "two GPUs": {"gpus": 2}, "Mac": {"mps": True}}
FOUND = [
    ("CPU", "auto", "cpu"),
    ("CPU", "cpu", "cpu"),
    ("two GPUs", "auto", "cuda"),
    ("two GPUs", "cuda", "cuda"),
    ("two GPUs", "cuda:1", "cuda:1"),
    ("two GPUs", "cpu", "cpu"),
    ("Mac", "auto", "mps"),
    ("Mac", "mps", "mps"),
    ("Mac", "cpu", "cpu"),
]


@pytest.mark.parametrize(("kind", "word", "expected"), FOUND)
def test_each_word_finds_its_device(kind, word, expected, machine):
    machine(**MACHINES[kind])
    with devices.choose(word):
        assert devices.find_for_process(devices.chosen()) == torch.device(expected)
    assert devices.chosen() == "auto"


REFUSED = [
    ("CPU", "cuda", ["there is no device cuda here", "this machine has cpu", "--device cpu"]),
    ("CPU", "mps", ["there is no device mps here", "this machine has cpu", "--device cpu"]),
    ("two GPUs", "cuda:2", ["there is no device cuda:2 here", "this machine has cuda, cuda:0, cuda:1, cpu"]),
    ("Mac", "cuda", ["this machine has mps, cpu", "--device cpu"]),
    ("CPU", "gpu", ["device is 'gpu'", "cpu, cuda, cuda:1 (the second GPU), mps or auto"]),
    ("two GPUs", "cuda:", ["device is 'cuda:'"]),
]


@pytest.mark.parametrize(("kind", "word", "words"), REFUSED)
def test_a_device_that_is_not_there_is_refused_in_words_and_code_2(
    kind, word, words, machine, command, finished_run
):
    machine(**MACHINES[kind])
    AcceleratorState._reset_state(reset_partial_state=True)
    code, printed = command("sample", finished_run, "--images", 2, "--device", word)
    assert code == 2 and "Traceback" not in printed
    assert all(part in printed for part in words), printed
    for load in (Generator.from_run, Tokenizer.from_run):
        with pytest.raises(UserError) as error:
            load(finished_run, device=word)
        assert all(part in str(error.value) for part in words)


def test_a_torch_without_cuda_says_so(machine, monkeypatch):
    machine()
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(UserError, match="was built without CUDA"):
        devices.find("cuda")


SEVERAL = {
    "Macs": ({"mps": True, "processes": 2}, "auto", "2 processes were started, and a Mac has one GPU"),
    "chosen Macs": ({"mps": True, "processes": 2}, "mps", "type --device cpu"),
    "more processes than GPUs": (
        {"gpus": 2, "processes": 4},
        "auto",
        r"4 processes were started on this machine, which has 2 GPUs: start 2 \(--nproc_per_node 2\)",
    ),
    "one GPU for all": (
        {"gpus": 4, "processes": 4},
        "cuda:1",
        "cuda:1 is for one process, and 4 were started",
    ),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_processes_that_would_share_a_device_are_refused(case, machine):
    made, word, words = SEVERAL[case]
    machine(**made)
    with pytest.raises(UserError, match=words):
        devices.find_for_process(word)
    assert devices.find_for_process("cpu").type == "cpu"


@pytest.mark.parametrize(("gpus", "processes"), [(2, 2), (4, 2), (1, 2)])
def test_several_processes_with_a_gpu_each_are_taken(gpus, processes, machine):
    """One that sees one GPU of a machine that has more may have been given it by its launcher."""
    machine(gpus, processes=processes, rank=1)
    for word in ("auto", "cuda"):
        device = devices.find_for_process(word)
        assert device == torch.device("cuda")
        devices.number_gpu(device)
    assert os.environ["LOCAL_RANK"] == ("0" if gpus == 1 else "1")


def test_two_processes_on_one_gpu_are_told_apart_from_two_that_see_one_each(machine, monkeypatch):
    machine(1, processes=2)
    own = {"uuid": "GPU-a"}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: types.SimpleNamespace(**own))
    device = torch.device("cuda", 0)
    for other, shared in (("GPU-b", False), ("GPU-a", True)):
        store = torch.distributed.HashStore()
        store.set("vqprior/gpu/1", other)
        if not shared:
            devices.refuse_one_gpu_for_two(store, 0, 2, device)
            continue
        with pytest.raises(UserError, match=r"processes 0 and 1 of 2 were given the same GPU \(GPU-a\)"):
            devices.refuse_one_gpu_for_two(store, 0, 2, device)


def test_the_cpu_of_accelerate_launch_is_heeded_on_a_machine_with_a_gpu(machine, monkeypatch):
    machine(2)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert processes.on_cpus() and processes.device_of_process() == torch.device("cpu")
    assert launch.accelerator_for(Config()).device == torch.device("cpu")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")
    assert devices.find("auto") == torch.device("cuda")


def test_what_accelerate_is_told_counts_where_nothing_is_chosen(machine, monkeypatch):
    machine(2)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cuda:1")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert processes.device_of_process() == torch.device("cuda", 1)
    with devices.choose("cpu"):
        assert processes.device_of_process() == torch.device("cpu")
    assert processes.device_of_process() == torch.device("cuda", 1)


def test_a_device_that_accelerate_is_told_and_that_is_not_here_is_refused(machine, monkeypatch):
    machine(1)
    for told in ("cuda:3", "mps"):
        monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", told)
        with pytest.raises(
            UserError, match=r"ACCELERATE_TORCH_DEVICE is .*this machine has cuda, cuda:0, cpu"
        ):
            devices.find("auto")


def test_commands_in_threads_take_one_device_at_a_time():
    with devices.choose("cpu"):
        with devices.choose("cpu"):
            assert devices.chosen() == "cpu"
        assert devices.chosen() == "cpu"
        with (
            pytest.raises(UserError, match="running with --device cpu, and this one takes auto"),
            devices.choose("auto"),
        ):
            pass
    assert devices.chosen() == devices.AUTO
    with devices.choose("mps"):
        assert devices.chosen() == "mps"


@pytest.mark.parametrize("arguments", [("--device=cpu", "export"), ("--device", "cpu", "export")])
def test_the_flag_may_stand_before_the_command(arguments, command, finished_run, tmp_path):
    assert command(*arguments, finished_run, "--out", tmp_path / "shared")[0] == 0


def test_a_flag_is_no_device(command):
    code, printed = command("train-vqvae", "folder", "--device", "--help")
    assert code == 2 and "--device says nothing" in printed


def test_commands_of_one_python_may_choose_different_devices(machine, monkeypatch, command, finished_run):
    """Up to where the networks would be put on a GPU, which is not here."""
    machine(2)
    AcceleratorState._reset_state(reset_partial_state=True)
    moved, seen = [], []
    monkeypatch.setattr(torch.cuda, "set_device", moved.append)

    def export(settings, run, card) -> None:
        seen.append((processes.device_of_process(), launch.accelerator_for(Config()).device))

    monkeypatch.setattr("vqprior.sampling.export.export", export)
    for words in (
        ["--device", "cpu"],
        ["--device=cuda:1"],
        [],
        ["--device", "mps", "--device", "cuda"],
        ["--device", "cpu"],
    ):
        code, printed = command("export", finished_run, *words, "--out", "never")
        assert code == 0, printed
    expected = [torch.device(word) for word in ("cpu", "cuda:1", "cuda", "cuda", "cpu")]
    assert seen == [(device, device) for device in expected]
    assert moved == [1, 0, 0]  # back from GPU 1, and to where "auto" looks; "cuda" is there already


def test_several_processes_stay_on_the_devices_they_have_met_on(machine, monkeypatch):
    machine(2)
    met = types.SimpleNamespace(num_processes=2, device=torch.device("cuda", 0))
    monkeypatch.setattr(processes, "PartialState", lambda: met)
    for word in ("auto", "cuda"):
        with devices.choose(word):
            processes._change()
    with devices.choose("cpu"), pytest.raises(UserError, match="have met on cuda, and --device is cpu now"):
        processes._change()


@pytest.mark.parametrize("name", sorted(cli.COMMANDS.keys() - {"import-codes", "ls", "doctor"}))
def test_every_command_takes_the_flag_anywhere_and_explains_it(name, command, finished_run, tmp_path):
    if name == "app":
        pytest.importorskip("gradio", reason="the extra app is not installed")  # which it says first
    target = ["folder", *TINY] if name == "run" else [finished_run]
    flags = ["--out", tmp_path / "out"] if name in ("run", "sample", "export", "complete", "score") else []
    flags += ["--image", "x.png", "--hide", "left half"] if name == "complete" else []
    flags += ["--pictures", tmp_path] if name == "score" else []
    for words in (["--device", "cuda:7", *flags], [*flags, "--device=cuda:7"]):
        code, printed = command(name, *target, *words)
        assert code == 2 and "there is no device cuda:7 here" in printed, printed
    code, printed = command(name, "--help")
    assert code == 0 and "--device cpu | cuda | cuda:1 | mps | auto" in " ".join(printed.split())
    code, printed = command(name, "--device")
    assert code == 2 and "--device says nothing" in printed


def test_the_device_is_no_setting_of_a_run(command, tmp_path, pictures):
    words = [
        "train-vqvae",
        "folder",
        *TINY,
        "--data.root",
        pictures,
        "--out",
        tmp_path / "run",
        "--device",
        "cpu",
    ]
    code, printed = command(*words)
    assert code == 0, printed
    assert "device:" not in (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "mine.yaml").write_text("device: cpu\n")
    code, printed = command("run", tmp_path / "mine.yaml", *TINY)
    assert code == 2


def test_python_takes_the_same_words(finished_run, machine):
    expected = Generator.from_run(finished_run).sample(2)
    for device in ("cpu", "auto", None, torch.device("cpu")):
        assert (Generator.from_run(finished_run, device=device).sample(2) == expected).all()
        assert Tokenizer.from_run(finished_run, device=device).vqvae.device.type == "cpu"
    with devices.choose("cpu"):
        assert cli.main(["--version"]) == 0


# What fp32 means


def conv() -> str:
    return torch.backends.cudnn.conv.fp32_precision


@pytest.mark.parametrize(
    "find", [lambda: devices.find("cpu"), lambda: processes.device_for(torch.device("cpu"))]
)
def test_fp32_is_ieee_from_where_a_device_is_chosen(find):
    torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "tf32"
    find()
    assert (conv(), torch.backends.cuda.matmul.fp32_precision) == ("ieee", "ieee")


def test_tf32_is_for_convolutions_inside_and_is_over_afterwards(machine):
    machine(1)
    devices.compute_in_ieee()
    cuda = torch.device("cuda")
    with devices.convolutions(cuda, "tf32"):
        assert (conv(), torch.backends.cuda.matmul.fp32_precision) == ("tf32", "ieee")
        with devices.convolutions(cuda, "no"):  # such as a preview in the middle of training
            assert conv() == "ieee"
        assert conv() == "tf32"
    with pytest.raises(ZeroDivisionError), devices.convolutions(cuda, "tf32"):
        raise ZeroDivisionError
    assert conv() == "ieee"
    with launch.autocast(torch.device("cpu"), "no"):
        assert not torch.is_autocast_enabled("cpu") and conv() == "ieee"


NO_TF32 = {
    "CPU": ({}, "cpu"),
    "Mac": ({"mps": True}, "mps"),
    "T4": ({"gpus": 1, "capability": (7, 5)}, "cuda"),
}


@pytest.mark.parametrize("kind", NO_TF32)
def test_tf32_is_refused_where_there_is_none(kind, machine):
    made, device = NO_TF32[kind]
    machine(**made)
    for use in (
        launch.autocast(torch.device(device), "tf32"),
        devices.convolutions(torch.device(device), "tf32"),
    ):
        with (
            pytest.raises(UserError, match=r"compute capability 8\.0 or newer, and this is .*--precision no"),
            use,
        ):
            pass
    with pytest.raises(UserError, match="tf32"):
        launch.settled(Config(precision="tf32"), torch.device(device))


def test_tf32_on_a_cpu_is_refused_by_every_command_that_takes_a_precision(command, finished_run, tmp_path):
    for name in ("run", "train-vqvae", "encode", "evaluate", "sample"):
        target = (
            ["folder", *TINY, "--out", tmp_path / "new"] if name in ("run", "train-vqvae") else [finished_run]
        )
        out = ["--out", tmp_path / "samples"] if name == "sample" else []
        code, printed = command(name, *target, "--precision", "tf32", *out)
        assert code == 2 and "precision tf32 needs an NVIDIA GPU" in printed, printed


def test_tf32_for_samples_alone_is_refused_before_anything_is_trained_or_stored(command, pictures, tmp_path):
    code, printed = command(
        "run",
        "folder",
        *TINY,
        "--sample.precision",
        "tf32",
        "--data.root",
        pictures,
        "--out",
        tmp_path / "run",
    )
    assert code == 2 and "take --sample.precision no" in printed
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_threads_with_another_precision_wait_for_each_other(machine):
    """What fp32 means is one setting of the process: nobody's convolutions may change in the middle."""
    machine(1)
    devices.compute_in_ieee()
    cuda, seen = torch.device("cuda"), []

    def other() -> None:
        with devices.convolutions(cuda, "no"):
            seen.append(conv())

    with devices.convolutions(cuda, "tf32"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        assert not seen and conv() == "tf32"
    thread.join()
    assert seen == ["ieee"] and conv() == "ieee"


def test_accelerate_hears_no_autocast_for_tf32(machine, monkeypatch):
    machine(1)
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = launch.accelerator_for(Config(precision="tf32"))
    assert accelerator.mixed_precision == "no" and accelerator.device.type == "cuda"


def test_kernels_are_tried_out_in_training_and_nowhere_else(machine):
    machine(1)
    cuda, cudnn = torch.device("cuda"), torch.backends.cudnn
    assert not cudnn.benchmark
    with pipeline.training_on(cuda, Config()):
        assert cudnn.benchmark
        with launch.autocast(cuda, "no"):  # an evaluation in the middle
            assert not cudnn.benchmark
        assert cudnn.benchmark
    with pipeline.training_on(cuda, Config(deterministic=True)):
        assert not cudnn.benchmark and torch.are_deterministic_algorithms_enabled()
    assert not cudnn.benchmark and not torch.are_deterministic_algorithms_enabled()


def test_the_current_device_is_that_of_the_networks(machine, monkeypatch):
    """Streams and events are the current device's: on another one nothing would be waited for."""
    machine(2)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cuda:1")
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert processes.device_of_process() == torch.device("cuda", 1)
    assert taken[-1] == 1


def test_what_was_measured_and_encoded_says_what_fp32_was(finished_run):
    assert json.loads((finished_run / "codes" / "header.json").read_text())["fp32_precision"] == "ieee"
    protocol = json.loads((finished_run / "metrics.json").read_text())["protocol"]
    for found in (protocol, *(part["by"] for part in protocol["parts"].values())):
        assert found["fp32_precision"] == "ieee"
        assert found["device"] == processes.device_of_process().type and found["device_name"]
