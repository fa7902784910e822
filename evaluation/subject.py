"""What is measured: a run's networks, its data and its code maps, and the sets of images that are compared."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vqprior.configs.commands import Evaluation
from vqprior.configs.errors import UserError
from vqprior.runtime import checkpoint
from vqprior.runtime.checkpoint import Checkpoint
from vqprior.runtime.code_maps import CodeMaps
from vqprior.runtime.data import DataSet, Split
from vqprior.runtime.files import write_file
from vqprior.runtime.processes import on_main, say
from vqprior.runtime.randomness import some_of
from vqprior.runtime.run_dir import RunDir
from vqprior.sampling.choice import Sampling
from vqprior.sampling.networks import Networks
from vqprior.stage1_vqvae.vqvae import VQVAE, find_vqvae
from vqprior.stage2_prior.measure import code_frequencies, position_counts
from vqprior.stage2_prior.prior import Prior

from .classifier import RECIPE, Classifier, Labelled, train_classifier
from .code_models import CodeModel, independent
from .features import CLASSIFIER, Extractor, of_classifier, of_torch_fidelity
from .rows import Images, digest, keep_row

SEED = 0  # of the models without neighbours and of the classifiers
ROWS = {
    "train": "real training images",
    "reconstructions": "reconstructions of test images",
    "samples": "samples of the prior",
    "per_position": "samples of a per-position model",
    "unigram": "samples of a unigram model",
    "uniform": "uniform codes",
}
"""The ladder, from the top; each is compared with real test images."""
DRAWING = ("seed", "label", "guidance", "temperature", "top_k", "top_p", "precision")  # settings that samples depend on
LEARNT = {
    "all": "all real training images",
    "train": "as many real training images",
    "train_reconstructions": "their reconstructions",
    "samples": "samples",
}
"""What classifiers learn from."""


@dataclass
class Subject:
    """A run to be measured, on this process's device."""

    config: Evaluation
    run: RunDir
    data: DataSet
    maps: CodeMaps
    vqvae_found: Checkpoint
    prior_found: Checkpoint
    networks: Networks
    made: dict[str, Images] = field(default_factory=dict)

    @classmethod
    def open(cls, config: Evaluation, run: RunDir, data: DataSet) -> "Subject":
        """Load both stages.

        Raises:
            UserError: a stage is missing, the stages do not belong together, or the data are not those they learnt from.
        """
        maps = CodeMaps(run.codes)
        if maps.header.data_fingerprint != data.fingerprint:
            raise UserError(f"{run.codes} was encoded from other pictures than data.root ({config.data.root}) holds now")
        vqvae = on_main(find_vqvae, run.stage1, maps.header.vqvae, warn=say)
        prior = on_main(checkpoint.best, run.stage2)
        if prior.meta["codes"]["vqvae"] != maps.header.vqvae:
            raise UserError(f"{prior.path} was trained on other codes than {run.codes} holds; train the prior again")
        networks = Networks.from_run(run.path)
        batch_size = on_main(networks.batch_size_of, config.sample)
        config = replace(config, sample=replace(config.sample, batch_size=batch_size))
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        networks.vqvae.to(memory_format=layout), networks.prior.to(memory_format=layout)
        return cls(config, run, data, maps, vqvae, prior, networks)

    @property
    def vqvae(self) -> VQVAE:
        return self.networks.vqvae

    @property
    def prior(self) -> Prior:
        return self.networks.prior

    @property
    def K(self) -> int:
        return self.prior.K

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.networks.label_names

    @property
    def n(self) -> int:
        """Images in each row."""
        return min(self.config.images, len(self.data.test), len(self.data.train))

    @property
    def folder(self) -> Path:
        """Where rows, classifiers and figures are kept."""
        return self.run.evaluation

    @property
    def how(self) -> dict[str, Any]:
        """How maps and images go through the networks."""
        return dict(batch=self.config.inference_batch, precision=self.config.precision)

    def origin(self) -> dict[str, Any]:
        """What every figure depends on."""
        return {
            "vqvae": self.vqvae_found.fingerprint,
            "prior": self.prior_found.fingerprint,
            "data": self.data.fingerprint,
            "precision": self.config.precision,
        }

    def drawing(self) -> dict[str, Any]:
        """How samples are drawn: image i of the row is image i of `vqprior sample` with these settings."""
        settings = asdict(self.config.sample)
        settings["label"] = settings["label"] or None  # as figures have always been kept
        return {name: settings[name] for name in DRAWING}

    def real(self, split: Split) -> tuple[Images, Tensor]:
        """`n` images of a split, chosen by chance but always the same, and which they are: [n] int64, ascending."""
        chosen = some_of(len(split), self.n)
        return lambda at: split.images(chosen[at]), chosen

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] uint8 -> their reconstructions."""
        precision = self.config.precision
        codes = self.networks.tokenizer.codes_of(images, precision=precision)
        return self.networks.tokenizer.images_of(codes, precision=precision)

    def draw(self, numbers: Tensor, labels: Tensor | None) -> Tensor:
        """The images with these numbers [N] and labels [N], as `vqprior sample` with the run's settings draws them."""
        settings = self.config.sample
        return self.networks.draw(numbers, labels, Sampling.of(settings, settings.batch_size))

    @cached_property
    def frequencies(self) -> tuple[Tensor, Tensor]:
        """Of the training codes: [K] and [places, K]."""
        return code_frequencies(position_counts(self.maps.split("train"), self.K))

    def row(self, name: str) -> Images:
        """The images of a row of the ladder, made the first time they are asked for."""
        if name not in self.made:
            self.made[name] = self._make(name)
        return self.made[name]

    def sample_labels(self) -> Tensor | None:
        """The labels [n] that the samples were asked for: the classes in turn."""
        return self.networks.labels_for(torch.arange(self.n), self.config.sample.label)

    def _make(self, name: str) -> Images:
        asked, batch = self.origin() | {"n": self.n}, self.config.inference_batch
        height, width = self.vqvae.map_size
        if name in ("train", "test"):  # kept too: they are read many times, and decoding pictures is slow
            make, asked = self.real(getattr(self.data, name))[0], {"n": self.n, "data": self.data.fingerprint}
        elif name in ("reconstructions", "train_reconstructions"):
            images = self.row("test" if name == "reconstructions" else "train")
            make = lambda at: self.reconstruct(images(at))
        elif name == "samples":
            labels, batch = self.sample_labels(), self.config.sample.batch_size
            asked |= self.drawing()
            make = lambda at: self.draw(at, None if labels is None else labels[at])
        else:
            unigram, per_position = self.frequencies
            p = {"unigram": unigram, "per_position": per_position, "uniform": torch.full((self.K,), 1 / self.K).double()}[name]
            model: CodeModel = independent(p, height, width, SEED)
            make = lambda at: self.networks.tokenizer.images_of(model(at), precision=self.config.precision)
        row = keep_row(self.folder, name, asked, make, count=self.n, batch=batch)
        self.networks.release()  # there is room again for what looks at the row
        return row

    def learning(self, name: str) -> Labelled:
        """Images to train a classifier on: `all` real training images, n of them (`train`), or another row."""
        if name == "all":
            return Labelled(self.data.train.images, self.data.train.labels)
        if name in ("train", "train_reconstructions"):
            return Labelled(self.row(name), self.data.train.labels[self.real(self.data.train)[1]])
        return Labelled(self.row(name), self.sample_labels())

    def classifier(self, name: str) -> Classifier:
        """The classifier that learnt from these images: see `learning`."""
        asked: dict[str, Any] = {} if name == "all" else {"n": self.n}
        asked |= self.origin() if name in ("train_reconstructions", "samples") else {}
        asked |= self.drawing() if name == "samples" else {}
        return self.classifier_of(name, lambda: self.learning(name), asked, LEARNT[name])

    def classifier_of(self, name: str, learning: Callable[[], Labelled], asked: dict[str, Any], what: str) -> Classifier:
        """The classifier that learnt from some images; the main process trains it where it is not there yet.

        Args:
            name: of its file; one of the same name that learnt from others makes room for it.
            learning: the images, made on all processes.
            asked: what they depend on, besides the data.
            what: they are, in words.
        """
        asked = {"recipe": RECIPE, "steps": self.config.classifier_steps, "seed": SEED, "data": self.data.fingerprint} | asked
        file = self.folder / f"classifier-{name}-{digest(asked)}.safetensors"
        shape = (self.config.data.channels, *self.config.data.size)
        classes, steps, device = len(self.label_names), self.config.classifier_steps, self.networks.device

        def train() -> None:
            for old in self.folder.glob(f"classifier-{name}-??????????.safetensors"):
                old.unlink()
            model = train_classifier(images, shape, classes, steps=steps, seed=SEED, device=device)
            tensors = {key: tensor.contiguous().cpu() for key, tensor in model.state_dict().items()}
            write_file(file, lambda path: save_file(tensors, path))

        if not on_main(file.is_file):
            images = learning()
            say(f"evaluate: train a classifier on {what}, {steps} steps")
            on_main(train)
        model = Classifier(shape[0], shape[1:], classes)
        model.load_state_dict(load_file(file))
        return model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)

    @cached_property
    def extractor(self) -> Extractor:
        """The network that distances are measured in.

        Raises:
            UserError: the classifier's features of a data set without classes, or a network that cannot be had.
        """
        name = self.config.features
        if name != CLASSIFIER:
            made: list[Extractor] = []
            load = lambda: made.append(of_torch_fidelity(name, self.config.features_weights, self.networks.device))
            on_main(load)  # so that a download happens once
            if not made:
                load()
            return made[0]
        if not self.label_names:
            raise UserError(
                "features of a classifier need classes, and these data have none: "
                "pip install 'vqprior[eval]' and take --features inception-v3-compat"
            )
        return of_classifier(self.classifier("all"), self.networks.device)
