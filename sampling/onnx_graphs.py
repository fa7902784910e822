"""The networks of a run as ONNX graphs, for runtimes without torch.

OUT/onnx/
    encoder.onnx    images -> codes, features
    decoder.onnx    codes -> images
    prior.onnx      labels, codes -> logits

Of several levels `codes` and `features` are codes0, codes1, ..., coarsest first, and each level has its own
prior0.onnx, prior1.onnx, ..., which takes the codes of its own level and of those above. The first axis of
all inputs and outputs is the batch, of any size; docs/export.md has the others.
"""

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from vqprior.configs.errors import UserError
from vqprior.runtime import devices
from vqprior.runtime.codes import Codes
from vqprior.runtime.files import sync_file
from vqprior.runtime.run_dir import RunDir
from vqprior.stage1_vqvae.vqvae import VQVAE, load_vqvae, vqvae_of
from vqprior.stage2_prior.prior import Prior
from vqprior.stage2_prior.priors import load_prior

from .arguments import numbered
from .networks import prior_checkpoints

FOLDER = "onnx"  # of an exported run
PACKAGES = ("onnx", "onnxscript")  # that torch writes graphs with
BATCH = 2  # of the inputs that a graph is traced with: 1 would be taken for a constant


def refuse_without_exporter() -> None:
    """Refuse, with a UserError, where torch cannot write graphs for want of a package."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise UserError(
            f"--onnx True needs {' and '.join(missing)}: pip install 'vqprior[onnx]', or leave it out"
        )


def write_graphs(run: RunDir) -> None:
    """Write the graphs of a run's networks, in fp32, into a new folder in it.

    Raises:
        UserError: a stage is missing, or torch cannot write one of the networks.
    """
    folder, cpu = run.path / FOLDER, torch.device("cpu")
    folder.mkdir()
    priors = [load_prior(found, cpu) for found in prior_checkpoints(run)]
    levels = [prior.level for prior in priors]
    codes = tuple(torch.zeros(BATCH, *level.size, dtype=torch.int64) for level in levels)
    names = numbered("codes", len(levels))
    with devices.exporting():
        if run.config().data.source != "codes":  # imported ones have no VQ-VAE
            vqvae = load_vqvae(vqvae_of(run), cpu)
            x = torch.zeros(BATCH, vqvae.channels, *vqvae.image_size)
            outputs = [*names, *numbered("features", len(levels))]
            _write(folder / "encoder.onnx", vqvae, _encoded, {"images": x}, outputs)
            given = dict(zip(names, codes, strict=True))
            _write(folder / "decoder.onnx", vqvae, _decoded, given, ["images"])
        for level, (name, prior) in enumerate(zip(numbered("prior", len(levels)), priors, strict=True)):
            labels = {"labels": torch.zeros(BATCH, dtype=torch.int64)} if prior.classes else {}
            given = labels | dict(zip(names[: level + 1], codes[: level + 1], strict=True))
            _write(folder / f"{name}.onnx", prior, _logits, given, ["logits"])


def _encoded(vqvae: VQVAE, x: Tensor) -> tuple[Tensor, ...]:
    """Codes of all levels, then the encoder outputs that they were chosen for."""
    quantized = vqvae.encode(x)
    return tuple(of_level.codes for of_level in quantized) + tuple(of_level.z_e for of_level in quantized)


def _decoded(vqvae: VQVAE, *codes: Tensor) -> Tensor:
    return vqvae.decode_codes(codes).clamp(0, 1)


def _logits(prior: Prior, *given: Tensor) -> Tensor:
    labels: Tensor | None = None
    codes: Codes = given
    if prior.classes:
        labels, *codes = given
    *above, own = codes
    return prior(own, labels, tuple(above))


class _Graph(nn.Module):
    """A network whose forward is one of the functions above."""

    def __init__(self, network: nn.Module, compute: Callable[..., Tensor | tuple[Tensor, ...]]):
        super().__init__()
        self.network, self.compute = network, compute

    def forward(self, *given: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.compute(self.network, *given)


def _write(
    file: Path,
    network: nn.Module,
    compute: Callable[..., Tensor | tuple[Tensor, ...]],
    given: dict[str, Tensor],
    outputs: Sequence[str],
) -> None:
    """Write what a function makes of a network and of inputs, by their names, as a graph.

    Raises:
        UserError: torch cannot.
    """
    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings(action="ignore"):  # of the name that two axes share
            torch.onnx.export(
                _Graph(network, compute).eval(),
                tuple(given.values()),
                file,
                input_names=[*given],
                output_names=[*outputs],
                dynamic_shapes=(tuple({0: batch} for _ in given),),
                external_data=False,  # one file
                # torch 2.14's optimizer breaks the logistic decoder, and runtimes optimize by themselves
                optimize=False,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise UserError(
            f"torch {torch.__version__} cannot write {file.name} of a {type(network).__name__} ({reason}); "
            "leave --onnx out"
        ) from error
    sync_file(file)
