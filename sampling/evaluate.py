"""What the numbers say of both stages: the figures of `metrics.json`."""

import math
from dataclasses import asdict
from typing import Any

import torch

from configs import Config
from configs.errors import UserError
from runtime import checkpoint
from runtime.code_maps import CodeMaps
from runtime.data import DataSet
from runtime.files import write_json
from runtime.processes import device_of_process, on_main, say
from runtime.run_dir import RunDir, git_commit, package_version
from stage1_vqvae.measure import measure
from stage1_vqvae.vqvae import find_vqvae, load_vqvae
from stage2_prior.measure import bits_per_code, per_position_bits, position_counts, unigram_bits
from stage2_prior.pixelcnn import load_prior

Metrics = dict[str, Any]


def evaluate(config: Config, run: RunDir, data: DataSet) -> Metrics:
    """Measure both stages on the test split, print a table and write `metrics.json`.

    Raises:
        UserError: a stage is missing, the stages do not belong together, or the data are not those they learnt from.
    """
    maps = CodeMaps(run.codes)
    if maps.header.data_fingerprint != data.fingerprint:
        raise UserError(f"{run.codes} was encoded from other pictures than data.root ({config.data.root}) holds now")
    found = on_main(lambda: find_vqvae(run.stage1, maps.header.vqvae, warn=say))
    vqvae = load_vqvae(found, device_of_process())
    channels_last = torch.channels_last if config.channels_last else torch.contiguous_format
    vqvae.to(memory_format=channels_last)
    how = dict(batch=config.inference_batch, precision=config.precision)
    stage1 = measure(vqvae, data.test, channels_last=config.channels_last, **how)

    prior_found = on_main(lambda: checkpoint.best(run.stage2))
    if prior_found.meta["codes"]["vqvae"] != maps.header.vqvae:
        raise UserError(f"{prior_found.path} was trained on other codes than {run.codes} holds; train the prior again")
    prior = load_prior(prior_found, device_of_process()).to(memory_format=channels_last)
    splits = {name: maps.split(name) for name in ("train", "test")}
    nll = bits_per_code(prior, splits["test"], **how)
    nll_train = bits_per_code(prior, splits["train"], images=len(splits["test"]), **how)
    K = maps.header.level.K
    counts = [position_counts(splits[name], K) for name in ("train", "test")]
    places = maps.header.level.height * maps.header.level.width

    metrics: Metrics = {
        "stage1": {**stage1.figures(), "K": K, "map": [maps.header.level.height, maps.header.level.width]},
        "stage2": {
            "bits_per_code": nll,
            "nats_per_code": nll * math.log(2),
            "bits_per_image": nll * places,
            "bits_per_code_train": nll_train,
            "unigram_bits_per_code": unigram_bits(*counts),
            "per_position_bits_per_code": per_position_bits(*counts),
        },
        "protocol": {
            "split": "test",
            "images": len(data.test),
            "precision": config.precision,
            "seed": config.seed,
            "steps": {"stage1": found.step, "stage2": prior_found.step},
            "vqvae": found.fingerprint,
            "prior": prior_found.fingerprint,
            "data": asdict(config.data) | {"fingerprint": data.fingerprint},
            "version": package_version(),
            "commit": git_commit(),
            "torch": torch.__version__,
        },
    }
    on_main(lambda: write_json(run.metrics, metrics))
    say(table(metrics))
    return metrics


def table(metrics: Metrics) -> str:
    """The figures as text."""
    one, two = metrics["stage1"], metrics["stage2"]
    height, width = one["map"]
    rows = [
        ("stage 1: reconstruction", ""),
        ("  MSE on [0, 1]", f"{one['mse']:.5f}"),
        ("  MSE / variance", f"{one['relative_mse']:.4f}"),
        ("  PSNR", f"{one['psnr']:.2f} dB"),
        ("  codebook perplexity", f"{one['perplexity']:.1f} of {one['K']}"),
        ("  codes used", f"{one['usage']:.1%}"),
        (f"stage 2: prior of {height}x{width} codes", ""),
        ("  NLL", f"{two['bits_per_code']:.3f} bits/code ({two['nats_per_code']:.3f} nats/code)"),
        ("  NLL of an image", f"{two['bits_per_image']:.1f} bits"),
        ("  NLL on train", f"{two['bits_per_code_train']:.3f} bits/code"),
        ("  per-position model", f"{two['per_position_bits_per_code']:.3f} bits/code"),
        ("  unigram model", f"{two['unigram_bits_per_code']:.3f} bits/code"),
    ]
    title = f"test split, {metrics['protocol']['images']:,} images"
    return "\n".join([title, "-" * len(title), *(f"{name:<32}{value}".rstrip() for name, value in rows)])
