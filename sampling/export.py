"""A run -> a small folder to share: what sampling needs of it, and what a model hub shows.

OUT/
    config.yaml                      the settings, without places on this machine
    run.json                         versions and commits that trained it
    stage1/step-.../, stage2/.../    the weights that sampling uses: the best checkpoints, and no optimizer;
                                     of several levels also stage2-1/ and so on
    README.md, samples.png           the model card, and a grid of samples where it is soon drawn
    config.json                      sizes, classes and fingerprints, for hubs and other programs
    onnx/                            with --onnx True, the networks as graphs (onnx_graphs.py)

It is a run directory itself: `sample`, `complete`, `encode`, `evaluate`, `Generator.from_run` and
`Generator.from_pretrained` take it.
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
from vqprior.configs.schema import Data, Sample
from vqprior.runtime import checkpoint
from vqprior.runtime.checkpoint import Checkpoint
from vqprior.runtime.codes import Level
from vqprior.runtime.files import refuse_occupied, write_file, write_folder, write_json
from vqprior.runtime.lineage import BEGUN_FROM
from vqprior.runtime.pictures import columns_of, grid, save_png
from vqprior.runtime.processes import say
from vqprior.runtime.run_dir import FORMAT, RunDir
from vqprior.stage1_vqvae.vqvae import VQVAE, find_vqvae, vqvae_of

from .choice import Sampling
from .networks import Networks, prior_checkpoints
from .onnx_graphs import refuse_without_exporter, write_graphs

Card = Callable[[RunDir], str]
"""The model card of an exported folder, as Markdown."""
CARD, PICTURE, SUMMARY = "README.md", "samples.png", "config.json"
ROWS = 4  # of the grid of samples
SOON = 1024  # codes of an image, up to which a grid is drawn: seconds on a CPU (docs/sampling.md)


def export(settings: Export, run: RunDir, card: Card) -> Path:
    """Write the folder, whole or not at all.

    Raises:
        UserError: a stage is missing, the stages do not belong together, there is something else in the
            folder, or the networks cannot be written as graphs.
    """
    out = Path(settings.out)
    refuse_occupied(out)
    if settings.onnx:
        refuse_without_exporter()
    write_folder(out.resolve(), lambda folder: _fill(RunDir(folder), settings, run, card))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    say(f"export: {size / 2**20:.1f} MB in {out}, with a model card ({out / CARD})")
    return out


def _fill(out: RunDir, settings: Export, run: RunDir, card: Card) -> None:
    priors = prior_checkpoints(run)
    codes = priors[0].meta["codes"]
    fingerprint = codes["vqvae"]
    if run.config().data.source != "codes":  # imported ones have no VQ-VAE
        vqvae = find_vqvae(run.stage1, codes["vqvae"], warn=say)
        with torch.device("meta"):
            exact = VQVAE(configs.from_tree(vqvae.meta["config"])).exact_tensors()
        fingerprint = _copy(vqvae, out.stage1, {}, half=settings.half, exact=exact).fingerprint
    for level, prior in enumerate(priors):
        bound = {"codes": codes | {"vqvae": fingerprint}}
        _copy(prior, out.stage2_of(level), bound, half=settings.half)
    write_json(out.record, {"format": FORMAT, "starts": [start | {"command": []} for start in run.starts()]})
    write_file(out.config_file, configs.dump(_anywhere(run.config())))
    if settings.onnx:
        write_graphs(out)
    present(out, card)


def present(out: RunDir, card: Card) -> None:
    """Write what a model hub shows of a folder of weights: a summary, samples, and the card."""
    config, priors = out.config(), prior_checkpoints(out)
    codes = priors[0].meta["codes"]
    levels = [Level(**level) for level in codes["levels"]]
    imported = config.data.source == "codes"
    vqvae = {} if imported else {"vqvae": _identity(vqvae_of(out))}
    summary = {
        "library_name": "vqprior",
        "image_size": None if imported else list(config.data.size),
        "channels": None if imported else config.data.channels,
        "levels": [asdict(level) for level in levels],
        "label_names": codes["label_names"],
        **vqvae,
        "priors": [
            {"kind": config.stage2_of(level).prior} | _identity(found) for level, found in enumerate(priors)
        ],
    }
    write_json(out.path / SUMMARY, summary)
    if sum(level.places for level in levels) <= SOON and not config.data.decoder:
        save_png(out.path / PICTURE, _samples(out, config.sample))
    write_file(out.path / CARD, card(out))


def _identity(found: Checkpoint) -> dict[str, Any]:
    return {"step": found.step, "sha256": found.fingerprint}


def _samples(out: RunDir, settings: Sample) -> Tensor:
    """A grid of samples, a column a class, drawn in fp32."""
    networks = Networks.from_run(out.path, "cpu")
    settings = replace(settings, precision="no")
    columns = columns_of(len(networks.label_names))
    numbers = torch.arange(columns * ROWS)
    labels = networks.labels_for(numbers % columns)
    sampling = Sampling.of(settings, networks.batch_size_of(settings))
    return grid(networks.draw(numbers, labels, sampling), columns)


def _copy(
    saved: Checkpoint,
    folder: Path,
    changed: dict[str, Any],
    *,
    half: bool,
    exact: Collection[str] = (),
) -> Checkpoint:
    """Write the weights of a checkpoint that sampling uses into another folder.

    Args:
        half: in 16 bits.
        exact: names of those that stay as they are.
    """
    tensors = saved.tensors(saved.weights)
    if half:
        tensors = {name: tensor if name in exact else _half(tensor) for name, tensor in tensors.items()}
    names = ("stage", "level", "data_fingerprint", "codes", BEGUN_FROM)
    meta = {name: saved.meta[name] for name in names if name in saved.meta} | changed
    meta["config"] = asdict(_anywhere(configs.from_tree(saved.meta["config"])))
    checkpoint.save(folder, saved.step, {"model": tensors}, meta, saved.score)
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
