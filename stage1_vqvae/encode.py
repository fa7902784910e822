"""Images -> code maps on disk: every split, in shards, shared out over the processes; a killed dump goes
on."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from vqprior.configs import Config
from vqprior.configs.errors import UserError
from vqprior.runtime import checkpoint, code_maps
from vqprior.runtime.chunks import chunks
from vqprior.runtime.code_maps import Header
from vqprior.runtime.codes import Codes, in_words, joined
from vqprior.runtime.data import SPLITS, DataSet, Split
from vqprior.runtime.data.transform import augment, central
from vqprior.runtime.devices import fp32_precision
from vqprior.runtime.files import move_folder
from vqprior.runtime.launch import autocast
from vqprior.runtime.lineage import encodes_as
from vqprior.runtime.pictures import to_float
from vqprior.runtime.processes import device_of_process, each_in_turn, on_main, say
from vqprior.runtime.randomness import Stream, seed_of
from vqprior.runtime.run_dir import RunDir
from vqprior.runtime.unfinished import begin_parts

from .begin import refuse_other_pictures
from .vqvae import VQVAE, codes_of, load_vqvae


def encode(config: Config, run: RunDir, data: DataSet) -> None:
    """Write the code maps of all splits with the best checkpoint of stage one, where that is not done
    already.

    Raises:
        UserError: there is no such checkpoint, it was trained on other pictures, or a prior was already
            trained on the code maps of another checkpoint.
    """
    saved = on_main(checkpoint.best, run.stage1)
    refuse_other_pictures(saved, data)
    model = load_vqvae(saved, device_of_process())
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    header = Header(
        levels=[*model.levels],
        **encodes_as(saved),
        precision=config.precision,
        data=config.data.binding(),
        data_fingerprint=data.fingerprint,
        label_names=list(data.label_names),
        sizes=_sizes(config, data),
        format=code_maps.FORMAT if len(model.levels) > 1 else 1,
        fp32_precision=fp32_precision(config.precision),
    )
    partial = on_main(_begin, run, header)
    if partial is None:
        return say(f"encode: done, {sum(header.sizes.values()):,} images in {run.codes}")

    def write(shard: tuple[str, int, int]) -> None:
        split, start, size = shard
        if not code_maps.has_shard(partial, header, split, start):
            images, indices = data.split(split), torch.arange(start, start + size)
            codes = joined(_codes(model, images, indices, config))
            originals = indices % len(images)
            labels = None if images.labels is None else images.labels[originals]
            code_maps.write_shard(partial, header, split, start, codes, labels, images.names(originals))

    each_in_turn(code_maps.shard_starts(header), write, "encode")
    on_main(_finish, run, header, partial)
    say(f"encode: {sum(header.sizes.values()):,} images -> {in_words(model.levels)} in {run.codes}")


def _begin(run: RunDir, header: Header) -> Path | None:
    """The folder of the unfinished dump, with the shards of this header that are there; None if all is
    done."""
    there = code_maps.read_header(run.codes)
    if there and there.origin() == header.origin():
        return None
    if there and (begun := run.begun_priors()):
        folders = " and ".join(str(run.stage2_of(level)) for level in begun)
        raise UserError(
            f"the prior in {folders} was trained on codes of another stage-one checkpoint or of other "
            f"settings. Delete {folders} to encode and train it again, or start a new run with --out"
        )
    # No dump holds codes of TF32 and of fp32
    partial = run.codes.with_name("codes.partial")
    begin_parts(partial / "origin.json", header.origin() | {"fp32_precision": header.fp32_precision})
    return partial


def _sizes(config: Config, data: DataSet) -> dict[str, int]:
    """Images of each split, those for training with their copies."""
    sizes = {name: len(data.split(name)) for name in SPLITS}
    return sizes | {"train": sizes["train"] * (1 + config.data.copies)}


def _finish(run: RunDir, header: Header, partial: Path) -> None:
    code_maps.finish(partial, header)
    move_folder(partial, run.codes)


@torch.no_grad()
def _codes(model: VQVAE, split: Split, indices: Tensor, config: Config) -> Iterator[Codes]:
    """The codes of images, in chunks of one padded size, so that no product changes its shape.

    Index i + c * N is copy c of picture i of N: the picture itself for c = 0, else augmented, as a function
    of (seed, index).
    """
    for chunk in chunks(indices, config.inference_batch):
        places = chunk.padded
        canvas = split.canvas(places % len(split))
        varied = augment(canvas, config.data, seed_of(config.seed, Stream.COPIES), places)
        images = torch.where((places < len(split))[:, None, None, None], central(canvas, config.data), varied)
        x = to_float(images, model.device, channels_last=config.channels_last)
        with autocast(model.device, config.precision):
            codes = codes_of(model.encode(x))
        yield tuple(of_level.cpu() for of_level in chunk.own(codes))
