"""Features that sets of images are compared in: those of torch-fidelity's networks, or of a classifier.

The classifier learns the classes of the run's own training images, so it needs no weights from elsewhere; its
Frechet distance is called FD(classifier), and is not comparable with any FID.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from vqprior.configs.errors import UserError
from vqprior.runtime.chunks import chunks, in_chunks
from vqprior.runtime.pictures import to_float
from vqprior.runtime.processes import device_of_process, share_of_process, sum_tensor

from .classifier import Classifier
from .rows import Images

CLASSIFIER = "classifier"


class Extractor(NamedTuple):
    """A network that sees features in images."""

    name: str
    distance: str  # what the Frechet distance in them is called
    features: Callable[[Tensor], Tensor]  # uint8 [B, C, H, W] -> [B, F] fp32 on the CPU


def of_classifier(model: Classifier, device: torch.device) -> Extractor:
    """The features of a trained classifier."""

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        return model.features(to_float(images, device, channels_last=True)).float().cpu()

    return Extractor(CLASSIFIER, "FD(classifier)", features)


def of_torch_fidelity(name: str, weights: str | None, device: torch.device) -> Extractor:
    """A registered feature extractor of torch-fidelity; its weights are downloaded, or read from a file.

    Raises:
        UserError: torch-fidelity is not installed, knows no such extractor, or the weights cannot be had.
    """
    try:
        from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY as known
        from torch_fidelity.utils import create_feature_extractor
    except ImportError as error:
        raise UserError(
            f"the features {name!r} are those of torch-fidelity, which is not installed ({error}): "
            "pip install 'vqprior[eval]', or take --features classifier"
        ) from error
    if name not in known:
        names = ", ".join([CLASSIFIER, *sorted(known)])
        raise UserError(f"there are no features {name!r}; there are {names}")
    if weights:
        _refuse_pickles(Path(weights))
    place = device if device.type == "cuda" else torch.device("cpu")  # torch-fidelity knows no others
    layer = known[name].get_default_feature_layer_for_metric("fid")
    try:
        network = create_feature_extractor(
            name, [layer], cuda=place.type == "cuda", feature_extractor_weights_path=weights, verbose=False
        )
    except Exception as error:  # of urllib, torch.hub, or a state dict that does not fit
        raise UserError(
            f"the weights of {name!r} cannot be had: {type(error).__name__} {error}. "
            "Give a file with --features_weights, or take --features classifier"
        ) from error

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        colour = images if images.shape[1] == 3 else images.expand(-1, 3, -1, -1)
        return network(colour.to(place))[0].float().flatten(1).cpu()

    return Extractor(name, "FID" if name.startswith("inception-v3") else f"FD({name})", features)


def _refuse_pickles(file: Path) -> None:
    """Look at what torch-fidelity would unpickle unseen: it must be tensors, or a TorchScript archive.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    if not file.is_file():
        raise UserError(f"--features_weights {file} is not a file; expected the file of the weights")
    try:
        with ZipFile(file) as archive:  # what torch.load, too, takes for TorchScript
            if any(name.split("/")[1:] == ["constants.pkl"] for name in archive.namelist()):
                return
    except BadZipFile:
        pass  # as torch wrote before 1.6
    try:
        torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a crafted file makes of it
        raise UserError(
            f"--features_weights {file} is refused: it holds more than tensors, and loading it could run "
            "code. Expected a state dict or a TorchScript archive"
        ) from error


def features_at(extractor: Extractor, images: Images, indices: Tensor, batch: int) -> Tensor:
    """Features [n, F] fp32 on the CPU of the images with these indices [n], in chunks of one size."""
    return in_chunks(lambda at: extractor.features(images(at)), indices, batch)


def features_of(extractor: Extractor, images: Images, count: int, batch: int) -> Tensor:
    """Features [count, F] fp32 on the CPU of images 0 to count-1, in chunks shared out over the processes."""
    share = share_of_process()
    width = extractor.features(images(torch.zeros(batch, dtype=torch.int64))).shape[1]
    features = torch.zeros(count, width)
    for chunk in chunks(count, batch, share, name="features"):
        features[chunk.items] = chunk.own(extractor.features(images(chunk.padded)))
    return sum_tensor(features.to(device_of_process())).cpu()  # each row is zero on all processes but one
