"""What stage one begins with: its own checkpoint, of these pictures; or the weights of another run, to
train on, to sharpen or to take over as they are."""

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vqprior.configs import Config, differences, from_tree
from vqprior.configs.errors import UserError
from vqprior.runtime import checkpoint, code_maps
from vqprior.runtime.checkpoint import Checkpoint
from vqprior.runtime.checkpoint_writer import Writer
from vqprior.runtime.data import DataSet, roots_of
from vqprior.runtime.files import write_folder
from vqprior.runtime.guard import Guard
from vqprior.runtime.launch import accelerator_for
from vqprior.runtime.lineage import (
    BEGUN_FROM,
    ENCODES_AS,
    differing,
    encodes_as,
    in_words,
    lineage,
    refuse_misfits,
    source_run,
)
from vqprior.runtime.processes import say
from vqprior.runtime.run_dir import RunDir

from .measure import measure
from .quantizers import QUANTIZERS
from .vqvae import VQVAE, vqvae_of

FITTING = (
    "data.channels",
    *(f"stage1.{name}" for name in ("K", "quantizer", "codes_per_position", "residual", "levels")),
    *(f"stage1.{name}" for name in ("factor", "width", "blocks", "block_width")),
    *(f"stage1.{name}" for kind in QUANTIZERS.values() for name in kind.FITTING),
)
"""Settings that weights are bound to."""
SHAPING = ("stage1.D", "stage1.likelihood")
"""Settings that may differ where the shapes of the weights do not."""
SAID = ("data.size", "data.crop", "data.range", "stage1.likelihood")
"""Settings under which the same weights mean something else, though they may be told to."""


def refuse_other_pictures(saved: Checkpoint, data: DataSet) -> None:
    """Refuse, with a UserError, to go on with a checkpoint on other pictures than it learnt from."""
    if saved.meta["data_fingerprint"] != data.fingerprint:
        raise UserError(
            f"{saved.path} was trained on other pictures than {roots_of(data.data)} holds now, or by another "
            "version of vqprior; put them back, or begin a new run with --out"
        )


def source_of(config: Config) -> Checkpoint | None:
    """The VQ-VAE of the run that `stage1.init` names, None where it names none.

    Raises:
        UserError: there is no such run, it has no VQ-VAE, or one that does not fit.
    """
    init = config.stage1.init
    if init is None:
        return None
    saved = vqvae_of(source_run("stage1", init), warn=say)
    settings = differing(from_tree(saved.meta["config"]), config, FITTING)
    with torch.device("meta"):
        here = VQVAE(config).state_dict()
    there = saved.tensors(saved.weights)
    if {name: x.shape for name, x in there.items()} != {name: x.shape for name, x in here.items()}:
        settings |= differing(from_tree(saved.meta["config"]), config, SHAPING)
    refuse_misfits("stage1", init, settings, there, here)
    return saved


def describe(config: Config, saved: Checkpoint) -> str:
    """Where stage one begins, in words."""
    text = f"the VQ-VAE {saved.fingerprint[:12]} of {config.stage1.init}, step {saved.step}"
    said = differing(from_tree(saved.meta["config"]), config, SAID)
    return f"{text}; mind that {in_words(said)}" if said else text


def binding(model: VQVAE, resumed: Checkpoint | None, source: Checkpoint | None) -> dict[str, Any]:
    """What checkpoints keep of whose codes they make, where only the decoder learns; see `encodes_as`."""
    if resumed:
        return {ENCODES_AS: resumed.meta[ENCODES_AS]}
    encoding = checkpoint.fingerprint_of(model.encoding(model.state_dict()))
    return {ENCODES_AS: encodes_as(source) | {"encoding": encoding}}


def take_codes(config: Config, run: RunDir, data: DataSet, saved: Checkpoint) -> None:
    """Copy the code maps and the priors of the run that `stage1.init` names, where they are of these codes
    and of the pictures here, and the priors of the settings here: a new decoder leaves them what they are."""
    there, vqvae = RunDir(Path(config.stage1.init)), encodes_as(saved)["vqvae"]
    header = code_maps.read_header(there.codes)
    origins = {there.codes: header.origin()} if header else {}
    for level in range(config.stage1.levels):
        folder, section = there.stage2_of(level), config.stage2_of(level).SECTION
        if prior := next(checkpoint.readable(folder), None):
            if changed := differences(from_tree(prior.meta["config"]), config, section):
                say(f"stage 1: the prior in {folder} is not taken over: {'; '.join(changed)}")
            else:
                origins[folder] = prior.meta["codes"]
    ours = {"vqvae": vqvae, "data_fingerprint": data.fingerprint, "data": config.data.binding()}
    taken = [folder for folder, origin in origins.items() if ours.items() <= origin.items()]
    for folder in taken:
        fill = partial(shutil.copytree, folder, dirs_exist_ok=True)
        write_folder(run.path / folder.name, fill)
    names = " and ".join(folder.name for folder in taken)
    say(
        f"stage 1: the decoder alone learns; {names} of {there.path} are taken over"
        if taken
        else f"stage 1: the decoder alone learns; {there.path} has no code maps or prior of these pictures, "
        "which are encoded here"
    )


def take_over(config: Config, run: RunDir, data: DataSet, saved: Checkpoint) -> None:
    """Write weights as they are into a checkpoint of step 0, measured on this run's pictures.

    The file of the weights is the same, and so is the fingerprint: code maps and priors of that VQ-VAE belong
    to this one.
    """
    accelerator, tensors = accelerator_for(config), saved.tensors(saved.weights)
    model = VQVAE(config).to(accelerator.device)
    model.load_state_dict(tensors)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    seen = measure(
        model,
        data.validation,
        batch=config.inference_batch,
        precision=config.precision,
        channels_last=config.channels_last,
    )
    files = {"model": tensors, "optimizer": {}}  # all that training needs, if stage1.steps are raised later
    if config.stage1.average:
        files["average"] = tensors
    writer = Writer(run.stage1, config.stage1.keep)
    meta = {
        "stage": "stage1",
        "config": asdict(config),
        "data_fingerprint": data.fingerprint,
        BEGUN_FROM: lineage(saved),
        **({ENCODES_AS: kept} if (kept := saved.meta.get(ENCODES_AS)) else {}),
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler else None,
        "guard": Guard(accelerator, writer, 0).state(),
    }
    writer.save(0, files, meta, seen.loss)
    writer.finish()
    say(
        f"stage 1: taken over as it is: {describe(config, saved)}; validation mse {seen.mse:.5f}, "
        f"psnr {seen.psnr:.2f} dB, {seen.use_in_words()}"
    )
