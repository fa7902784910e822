"""Where weights come from: the codes that a prior learnt, and the run that a stage began from.

A stage that began from the weights of another run (stage1.init, stage2.init) keeps in all its checkpoints the
fingerprints of these and of those that they began from in their turn: meta["begun_from"], the latest first.

Where only the decoder is trained (stage1.train), the codes stay those of the weights that it began from:
meta["encodes_as"] has their fingerprint, and that of the tensors that make codes (`VQVAE.encoding`), which
are looked at again whenever the weights are used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from vqprior.configs import Config, as_flags, flatten
from vqprior.configs.errors import UserError

from . import checkpoint, code_maps, run_dir
from .checkpoint import Checkpoint
from .run_dir import RunDir

BEGUN_FROM = "begun_from"  # in the meta of a checkpoint
ENCODES_AS = "encodes_as"  # likewise, see `encodes_as`
SHOWN = 4  # tensors that a message names


def codes_origin(run: RunDir) -> dict[str, Any] | None:
    """What a run's codes come from (see `code_maps.Header.origin`): as its prior says, else its code maps.

    None where there is neither.

    Raises:
        UserError: the header of the code maps is damaged.
    """
    for saved in checkpoint.readable(run.stage2):
        return saved.meta["codes"]
    header = code_maps.read_header(run.codes)
    return header.origin() if header else None


def encodes_as(saved: Checkpoint) -> dict[str, str]:
    """What code maps and priors of a VQ-VAE are bound to, `vqvae` and `weights` of their header: these
    weights, or where only their decoder was trained (stage1.train) those that the others are of."""
    itself = {"vqvae": saved.fingerprint, "weights": saved.weights}
    kept = saved.meta.get(ENCODES_AS, itself)
    return {name: kept[name] for name in itself}


def lineage(saved: Checkpoint) -> list[str]:
    """The fingerprints of these weights, as codes know them, and of all that they began from, the latest
    first."""
    return list(dict.fromkeys([encodes_as(saved)["vqvae"], *saved.meta.get(BEGUN_FROM, [])]))


def begun_from(resumed: Checkpoint | None, source: Checkpoint | None) -> list[str]:
    """What checkpoints keep of where their stage began: what they kept so far, else its source's lineage."""
    if resumed:
        return resumed.meta.get(BEGUN_FROM, [])
    return lineage(source) if source else []


def source_run(stage: str, init: str) -> RunDir:
    """The run that `stage`.init names.

    Raises:
        UserError: it is no run directory.
    """
    run = RunDir(Path(init))
    if not run_dir.is_run_dir(run.path):
        raise UserError(
            f"{stage}.init is {init!r}, which is not a run directory: it has no config.yaml. "
            f"Give the directory of a run, --{stage}.init RUN, or leave it out"
        )
    return run


def differing(there: Config, here: Config, names: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """The settings of these names that two configurations have otherwise: {"stage1.K": (16, 32)}."""
    old, new = flatten(asdict(there)), flatten(asdict(here))
    return {name: (old[name], new[name]) for name in names if old[name] != new[name]}


def in_words(settings: Mapping[str, tuple[Any, Any]]) -> str:
    """Differing settings as text."""
    return "; ".join(f"{name} is {old} there and {new} here" for name, (old, new) in settings.items())


def refuse_misfits(
    stage: str,
    init: str,
    settings: Mapping[str, tuple[Any, Any]],
    there: Mapping[str, Tensor],
    here: Mapping[str, Tensor],
) -> None:
    """Refuse to begin from weights that do not fit, naming what differs and what to type.

    Args:
        settings: that must agree and do not, as `differing` gives them.
        there, here: the tensors of both, by name; those here may be without content.

    Raises:
        UserError: settings differ, or the names or shapes of tensors.
    """
    shape = lambda tensors, name: list(tensors[name].shape) if name in tensors else "missing"
    both = ((name, shape(there, name), shape(here, name)) for name in {**here, **there})
    tensors = [f"{name} is {old} there and {new} here" for name, old, new in both if old != new]
    if not settings and not tensors:
        return
    shown = tensors[:SHOWN] + ([f"and {len(tensors) - SHOWN} more tensors"] if len(tensors) > SHOWN else [])
    what = "; ".join(part for part in (in_words(settings), *shown) if part)
    flags = " ".join(as_flags({name: old for name, (old, _) in settings.items()}))
    advice = f"Type {flags}" if flags else "Take the settings of that run"
    raise UserError(
        f"{stage}.init: the weights of {init} do not fit this configuration: {what}. {advice} to begin from "
        f"them, or leave --{stage}.init out to begin anew"
    )
