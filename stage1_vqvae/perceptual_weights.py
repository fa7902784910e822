"""Where the network comes from that pictures are compared in.

A classifier of the run's classes is trained once and kept in the run; VGG-16 comes from torchvision, and
LPIPS's linear heads from the package lpips.
"""

import pickle
from functools import partial
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vqprior.configs import Config
from vqprior.configs.errors import UserError
from vqprior.runtime.checkpoint import Checkpoint, Tensors, fingerprint_of, write_tensors
from vqprior.runtime.data import DataSet
from vqprior.runtime.files import write_file
from vqprior.runtime.interrupt import Interrupted
from vqprior.runtime.kept import Kept
from vqprior.runtime.processes import main_first, on_main, say
from vqprior.runtime.randomness import Stream, seed_of
from vqprior.runtime.run_dir import RunDir

from .classification import Labelled, train_classifier
from .perceptual import ClassifierStages, Perceptual, VGGStages

RECIPE = 1  # of the classifier and its training: one of another recipe, in a run, is trained anew
LEAST_VGG = 16  # pixels of a side, which VGG-16 halves four times


def perceptual_of(config: Config, run: RunDir, data: DataSet, device: torch.device) -> Perceptual | None:
    """The distance that `stage1.perceptual` weighs, None where that is 0.

    A classifier is trained by the main process where the run does not have it yet.

    Raises:
        UserError: there are no classes to learn, or a file is missing, does not fit, or is not one of
            tensors.
        Interrupted: the command was told to stop while a classifier was trained.
    """
    settings = config.stage1.features
    if not config.stage1.perceptual:
        return None
    if settings.network == "lpips":
        return _lpips(config, device)
    tensors = _tensors(Path(settings.weights)) if settings.weights else _trained(config, run, data, device)
    model = ClassifierStages(config.data.channels, len(tensors.get("head.bias", ())))
    _fill(model, tensors, f"stage1.features.weights {settings.weights}")
    return Perceptual(_frozen(model, device).stages, None, fingerprint_of(tensors))


def bound(perceptual: Perceptual, resumed: Checkpoint | None) -> dict[str, str]:
    """What checkpoints keep of the network.

    Raises:
        UserError: those so far learnt from another one.
    """
    kept = {"perceptual": perceptual.fingerprint}
    if resumed and resumed.meta.get("perceptual") != perceptual.fingerprint:
        raise UserError(
            f"{resumed.path} learnt from features of another network than stage1.features gives now "
            f"({perceptual.fingerprint[:12]}); give the files that it began with, or --out for a new run"
        )
    return kept


def _trained(config: Config, run: RunDir, data: DataSet, device: torch.device) -> Tensors:
    """The weights of a classifier of the run's classes, kept in the run."""
    if not data.label_names:
        raise UserError(
            "stage1.perceptual compares in features of a classifier, which learns classes, and these data "
            "have none. Take --stage1.features.network lpips, --stage1.features.weights FILE of a classifier "
            "that another run keeps, or --stage1.perceptual 0"
        )
    steps, seed = config.stage1.features.steps, seed_of(config.seed, Stream.FEATURES)
    recipe = {"recipe": RECIPE, "steps": steps, "seed": config.seed, "data": data.fingerprint}
    file = Kept(run.path, "perceptual", ".safetensors", recipe)

    def train() -> int:
        """The signal that it was stopped by, 0 for none."""
        file.make_room()
        classes = len(data.label_names)
        say(f"stage 1: train a classifier of {classes} classes to compare pictures in, {steps} steps")
        build = partial(ClassifierStages, config.data.channels, classes)
        labelled = Labelled(data.train.images, data.train.labels)
        try:
            model = train_classifier(build, labelled, steps=steps, seed=seed, device=device)
        except Interrupted as told:
            say("stage 1: stopped as told before its first step; the same command begins again")
            return told.code - 128
        write_file(file.path, partial(write_tensors, tensors=model.state_dict()))
        return 0

    if not on_main(file.path.is_file) and (signal := on_main(train)):
        raise Interrupted(signal)
    return _tensors(file.path)


def _lpips(config: Config, device: torch.device) -> Perceptual:
    """LPIPS with VGG-16."""
    settings, model = config.stage1.features, VGGStages()
    if min(config.data.size) < LEAST_VGG:
        raise UserError(
            f"stage1.features.network is lpips, which halves a picture four times, and data.size is "
            f"{config.data.size}; take pictures of {LEAST_VGG} pixels or more, or "
            "--stage1.features.network classifier"
        )
    tensors = _tensors(Path(settings.weights)) if settings.weights else main_first(_downloaded)
    tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("features.")}
    _fill(model, tensors, f"stage1.features.weights {settings.weights or '(torchvision)'}")
    heads = _heads(_tensors(Path(settings.heads) if settings.heads else _installed_heads()), settings.heads)
    of_heads = {f"lin{index}": head for index, head in enumerate(heads)}
    there = [head.to(device, torch.get_default_dtype()) for head in heads]
    return Perceptual(_frozen(model, device), there, fingerprint_of(tensors | of_heads))


def _downloaded() -> Tensors:
    """VGG-16's weights, from torchvision."""
    from torchvision.models import VGG16_Weights

    try:
        weights = VGG16_Weights.IMAGENET1K_V1
        return weights.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:  # no network, or another file than expected
        raise UserError(
            f"the weights of VGG-16 cannot be had from torchvision ({error}). Give a file with "
            "--stage1.features.weights, or take --stage1.features.network classifier"
        ) from error


def _installed_heads() -> Path:
    """The file of the package lpips."""
    try:
        return Path(str(files("lpips"))) / "weights" / "v0.1" / "vgg.pth"
    except ModuleNotFoundError as error:
        raise UserError(
            "lpips has linear heads besides VGG-16: pip install lpips, or give their file "
            "(weights/v0.1/vgg.pth of that package) with --stage1.features.heads"
        ) from error


def _heads(tensors: Tensors, named: str | None) -> list[Tensor]:
    """The weights [c, 1, 1] of each stage of VGG-16."""
    found = [tensors.get(f"lin{index}.model.1.weight") for index in range(5)]
    if any(head is None for head in found) or [head.numel() for head in found] != [64, 128, 256, 512, 512]:
        raise UserError(
            f"stage1.features.heads {named or ''} holds no linear heads of LPIPS with VGG-16; expected "
            "lin0.model.1.weight to lin4.model.1.weight, as weights/v0.1/vgg.pth of the package lpips has"
        )
    return [head.view(-1, 1, 1) for head in found]


def _tensors(file: Path) -> Tensors:
    """The tensors of a file; nothing in it is ever executed.

    Raises:
        UserError: there is no such file, or it holds anything else.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
        if not (isinstance(found, dict) and all(isinstance(value, Tensor) for value in found.values())):
            raise ValueError("it is no dictionary of tensors")
        return found
    except FileNotFoundError as error:
        raise UserError(f"{file} is not a file; expected one of weights, for stage1.features") from error
    except (SafetensorError, OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{file} is refused: it holds more than tensors, or is damaged ({error})") from error


def _fill(model: nn.Module, tensors: Tensors, named: str) -> None:
    """Load the weights; refuse others with a UserError."""
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{named} does not fit: {error}") from error


def _frozen(model: nn.Module, device: torch.device) -> nn.Module:
    """The network to look with, and never to train."""
    dtype = torch.get_default_dtype()
    return model.to(device, dtype, memory_format=torch.channels_last).eval().requires_grad_(False)
