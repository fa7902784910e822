"""A run -> a small folder to share: what sampling needs of it and nothing else.

OUT/
    config.yaml                      the settings, without places on this machine
    run.json                         versions and commits that trained it
    stage1/step-.../, stage2/.../    the weights that sampling uses: the best checkpoints, and no optimizer;
                                     of several levels also stage2-1/ and so on

It is a run directory itself: `sample`, `complete`, `encode`, `evaluate` and `Generator.from_run` take it.
"""

from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqprior import configs
from vqprior.configs import Config
from vqprior.configs.commands import Export
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Data
from vqprior.runtime import checkpoint
from vqprior.runtime.checkpoint import Checkpoint, Tensors
from vqprior.runtime.files import write_file, write_json
from vqprior.runtime.lineage import BEGUN_FROM
from vqprior.runtime.processes import say
from vqprior.runtime.run_dir import FORMAT, RunDir
from vqprior.stage1_vqvae.vqvae import VQVAE, find_vqvae

from .networks import prior_checkpoints


def export(settings: Export, run: RunDir) -> Path:
    """Write the folder.

    Raises:
        UserError: a stage is missing, the stages do not belong together, or there is something else in the
            folder.
    """
    out = RunDir(Path(settings.out))
    if out.path.exists() and any(out.path.iterdir()):
        raise UserError(f"{out.path} is not empty; give another folder with --out, or delete this one")
    priors = prior_checkpoints(run)
    codes = priors[0].meta["codes"]
    fingerprint = codes["vqvae"]
    if run.config().data.source != "codes":  # imported ones have no VQ-VAE
        vqvae = find_vqvae(run.stage1, codes["vqvae"], warn=say)
        with torch.device("meta"):
            model = VQVAE(configs.from_tree(vqvae.meta["config"]))
        tensors = dict(half=settings.half, exact=model.exact_tensors(), renamed=model.renamed)
        fingerprint = _copy(vqvae, out.stage1, {}, **tensors).fingerprint
    for level, prior in enumerate(priors):
        bound = {"codes": codes | {"vqvae": fingerprint}}
        _copy(prior, out.stage2_of(level), bound, half=settings.half)
    write_json(out.record, {"format": FORMAT, "starts": [start | {"command": []} for start in run.starts()]})
    write_file(out.config_file, configs.dump(_anywhere(run.config())))  # last: with it, it is a run directory
    size = sum(path.stat().st_size for path in out.path.rglob("*") if path.is_file())
    say(f"export: {size / 2**20:.1f} MB in {out.path}; vqprior sample {out.path} --images 64 --out samples")
    return out.path


def _copy(
    found: Checkpoint,
    folder: Path,
    changed: dict[str, Any],
    *,
    half: bool,
    exact: Collection[str] = (),
    renamed: Callable[[Tensors], Tensors] = lambda tensors: tensors,
) -> Checkpoint:
    """Write the weights of a checkpoint that sampling uses into another folder.

    Args:
        half: in 16 bits.
        exact: names of those that stay as they are.
        renamed: tensors under the names of earlier versions -> of today.
    """
    tensors = renamed(found.tensors(found.weights))
    if half:
        tensors = {name: tensor if name in exact else _half(tensor) for name, tensor in tensors.items()}
    kept = ("stage", "level", "data_fingerprint", "codes", BEGUN_FROM)
    meta = {name: found.meta[name] for name in kept if name in found.meta} | changed
    meta["config"] = asdict(_anywhere(configs.from_tree(found.meta["config"])))
    checkpoint.save(folder, found.step, {"model": tensors}, meta, found.score)
    return checkpoint.best(folder)


def _half(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float16) if tensor.is_floating_point() else tensor


def _anywhere(config: Config) -> Config:
    """The configuration without places on this machine."""
    plain = Data()
    places = ("root", "train_root", "validation_root", "test_root", "table", "cache")
    data = replace(config.data, **{name: getattr(plain, name) for name in places})
    # A stage that was taken over has no steps of its own, or a decoder alone, which takes stage1.init
    features = replace(config.stage1.features, weights=None, heads=None)
    alone = dict(init=None, train="all", steps=max(1, config.stage1.steps))
    stage1 = replace(config.stage1, features=features, **alone)
    stage2, fine = replace(config.stage2, init=None), replace(config.stage2_fine, init=None)
    sample = replace(config.sample, out=None)
    stages = dict(stage1=stage1, stage2=stage2, stage2_fine=fine)
    return replace(config, data=data, **stages, out=None, sample=sample)
