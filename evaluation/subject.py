"""What is measured: a run's networks, its data and code maps, and the sets of images that are compared."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqprior.configs.commands import Evaluation
from vqprior.configs.errors import UserError
from vqprior.runtime.checkpoint import Checkpoint, is_evaluated
from vqprior.runtime.code_maps import CodeMaps
from vqprior.runtime.codes import Codes, Level
from vqprior.runtime.data import DataSet, Split
from vqprior.runtime.kept import Kept
from vqprior.runtime.processes import on_main, say
from vqprior.runtime.randomness import some_of
from vqprior.runtime.run_dir import RunDir
from vqprior.sampling.choice import Sampling
from vqprior.sampling.decoding import Imported
from vqprior.sampling.networks import Networks, prior_checkpoints
from vqprior.sampling.tokenizer import Tokenizer
from vqprior.stage1_vqvae.vqvae import VQVAE, find_vqvae, vqvae_of
from vqprior.stage2_prior.measure import code_frequencies, position_counts

from .classifier import SEED
from .code_models import independent
from .features import CLASSIFIER, Extractor
from .learners import extractor_of
from .rows import Images, keep_row
from .weights import fingerprints

ROWS = {
    "train": "real training images",
    "reconstructions": "reconstructions of test images",
    "true_coarse": "true coarsest codes, drawn finer ones",
    "samples": "samples of the prior",
    "per_position": "samples of a per-position model",
    "unigram": "samples of a unigram model",
    "uniform": "uniform codes",
}
"""The ladder, from the top; each is compared with real test images. Of one level there are no finer codes."""
DRAWN = ("samples", "true_coarse")  # rows that are drawn from the priors
DRAWING = ("seed", "label", "guidance", "temperature", "top_k", "top_p", "precision")
"""Settings that samples depend on."""


def _layout(config: Evaluation) -> torch.memory_format:
    """How images lie in memory."""
    return torch.channels_last if config.channels_last else torch.contiguous_format


@dataclass
class Subject:
    """A run to be measured, on this process's device."""

    config: Evaluation
    run: RunDir
    data: DataSet | None  # None of imported codes
    maps: CodeMaps | None  # None of stage one alone
    vqvae_checkpoint: Checkpoint | None  # None of imported codes
    prior_checkpoints: list[Checkpoint]  # none of stage one alone, where they are not trained
    tokenizer: Tokenizer | Imported
    networks: Networks | None  # None of stage one alone
    made: dict[str, Images] = field(default_factory=dict)

    @classmethod
    def open(cls, config: Evaluation, run: RunDir, data: DataSet | None) -> "Subject":
        """Load both stages.

        Raises:
            UserError: a stage is missing, the stages do not belong together, or they learnt from other data.
        """
        maps = CodeMaps(run.codes)
        if data and maps.header.data_fingerprint != data.fingerprint:
            found = f"data.root ({config.data.root}) holds now"
            raise UserError(f"{run.codes} was encoded from other pictures than {found}; put them back")
        vqvae = on_main(find_vqvae, run.stage1, maps.header.vqvae, warn=say) if data else None
        priors = on_main(prior_checkpoints, run)
        if priors[0].meta["codes"]["vqvae"] != maps.header.vqvae:
            found = f"{priors[0].path} was trained on other codes than {run.codes} holds"
            raise UserError(f"{found}; train the prior again")
        networks = Networks.from_run(run.path)
        batch_size = on_main(networks.batch_size_of, config.sample)
        config = replace(config, sample=replace(config.sample, batch_size=batch_size))
        for network in (*([networks.vqvae] if data else []), *networks.priors):
            network.to(memory_format=_layout(config))
        return cls(config, run, data, maps, vqvae, priors, networks.tokenizer, networks)

    @classmethod
    def of_stage1(cls, config: Evaluation, run: RunDir, data: DataSet) -> "Subject":
        """Load stage one alone, beside which neither code maps nor priors need be there; those that are name
        the weights, as for all parts.

        Raises:
            UserError: it is missing, is not that which the others came from, or learnt from other data.
        """
        vqvae = on_main(vqvae_of, run, warn=say)
        if vqvae.meta["data_fingerprint"] != data.fingerprint:
            found = f"data.root ({config.data.root}) holds now"
            raise UserError(f"{vqvae.path} was trained on other pictures than {found}; put them back")
        levels = range(config.stage1.levels)
        has_priors = on_main(lambda: all(is_evaluated(run.stage2_of(level)) for level in levels))
        priors, tokenizer = (
            on_main(prior_checkpoints, run) if has_priors else [],
            Tokenizer.from_run(run.path),
        )
        tokenizer.vqvae.to(memory_format=_layout(config))
        return cls(config, run, data, None, vqvae, priors, tokenizer, None)

    @property
    def vqvae(self) -> VQVAE:
        return self.tokenizer.vqvae

    @property
    def levels(self) -> tuple[Level, ...]:
        """The maps of codes, coarsest first."""
        return self.tokenizer.levels

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.networks.label_names

    @property
    def n(self) -> int:
        """Images in each row."""
        return min(self.config.images, *self.sizes)

    @property
    def sizes(self) -> tuple[int, int]:
        """Images that there are to learn from, and to test on."""
        if self.data is None:
            sizes = self.maps.header.sizes
            return sizes["train"], sizes["test"]
        return len(self.data.train), len(self.data.test)

    @property
    def folder(self) -> Path:
        """Where rows, classifiers and figures are kept."""
        return self.run.evaluation

    @property
    def passes(self) -> dict[str, Any]:
        """In what batches and precision maps and images pass through the networks."""
        return dict(batch=self.config.inference_batch, precision=self.config.precision)

    @property
    def vqvae_fingerprint(self) -> str:
        """Of stage one with its decoder, which may be another than the codes' own (stage1.train)."""
        found = self.vqvae_checkpoint
        return found.fingerprint if found else self.maps.header.vqvae

    @property
    def data_fingerprint(self) -> str:
        """Of the data, those of imported codes too."""
        return self.data.fingerprint if self.data else self.maps.header.data_fingerprint

    def weights(self) -> dict[str, Any]:
        """What tells the networks from others."""
        return fingerprints(self.vqvae_fingerprint, self.prior_checkpoints)

    def origin(self, *, with_priors: bool = True) -> dict[str, Any]:
        """What figures depend on: those of stage one alone on no prior."""
        weights = self.weights() if with_priors else {"vqvae": self.vqvae_fingerprint}
        return weights | {"data": self.data_fingerprint, "precision": self.config.precision}

    @property
    def rows(self) -> dict[str, str]:
        """The rows of the ladder that these networks have."""
        return {name: words for name, words in ROWS.items() if name != "true_coarse" or len(self.levels) > 1}

    def drawing(self) -> dict[str, Any]:
        """How samples are drawn: image i of the row is image i of `vqprior sample` with these settings."""
        settings = asdict(self.config.sample)
        settings["label"] = settings["label"] or None  # as figures have always been kept
        return {name: settings[name] for name in DRAWING}

    def asking(self) -> dict[str, Any]:
        """What classes the row of samples was asked for, where not for as many of each."""
        return {} if self.config.classes == "even" else {"classes": self.config.classes}

    def real(self, split: Split) -> tuple[Images, Tensor]:
        """`n` images of a split, by chance but always the same, and which they are: [n] int64, ascending."""
        chosen = some_of(len(split), self.n)
        return lambda at: split.images(chosen[at]), chosen

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] uint8 -> their reconstructions."""
        precision = self.config.precision
        codes = self.tokenizer.codes_of(images, precision=precision)
        return self.tokenizer.images_of(codes, precision=precision)

    @property
    def sampling(self) -> Sampling:
        """How the `n` samples are drawn, one way for all of them."""
        settings = self.config.sample
        return self.networks.resolved(Sampling.of(settings, settings.batch_size), self.n)

    def draw(self, numbers: Tensor, labels: Tensor | None) -> Tensor:
        """The images with these numbers [N] and labels [N], as `vqprior sample` draws them."""
        return self.networks.draw(numbers, labels, self.sampling)

    def redraw(self, at: Tensor) -> Tensor:
        """The test images with these numbers [N] among the `n`, drawn given their coarsest codes."""
        test, settings = self.data.test, self.config.sample
        chosen = self.real(test)[1][at]
        coarsest, *finer = self.tokenizer.codes_of(test.images(chosen), precision=settings.precision)
        known = (coarsest, *(torch.full_like(codes, -1) for codes in finer))
        labels = None if (all_labels := self.test_labels()) is None else all_labels[at]
        drawn = self.networks.codes(at, labels, self.sampling, known)
        return self.networks.decode(drawn, self.sampling)

    @cached_property
    def frequencies(self) -> list[tuple[Tensor, Tensor]]:
        """Of the training codes of each level: [K] and [places, K]."""
        train = self.maps.split("train")
        counts = (position_counts(train.down_to(index), level) for index, level in enumerate(self.levels))
        return [*map(code_frequencies, counts)]

    def sample_labels(self) -> Tensor | None:
        """The labels [n] that samples were asked for: the classes in turn, or those of the test images."""
        if self.config.classes == "test":
            return self.test_labels()
        return self.networks.labels_for(torch.arange(self.n), self.config.sample.label)

    def test_labels(self) -> Tensor | None:
        """The labels [n] of the test images that rows are compared with."""
        return self.data.test.labels[self.real(self.data.test)[1]] if self.label_names else None

    def row(self, name: str) -> Images:
        """The images of a row of the ladder, or of `train` or `test`; made when they are first asked for."""
        if name not in self.made:
            batch = self.config.sample.batch_size if name in DRAWN else self.config.inference_batch
            file = Kept(self.folder, name, ".npy", self.settings_of(name))
            self.made[name] = keep_row(file, self._maker(name), count=self.n, batch=batch)
            self.networks.release()  # there is room again for what looks at the row
        return self.made[name]

    def settings_of(self, name: str) -> dict[str, Any]:
        """What a set of images is a function of: a row, or `all` real training images."""
        if name in ("all", "train", "test"):
            return {"data": self.data.fingerprint} | ({} if name == "all" else {"n": self.n})
        settings = self.origin(with_priors=name in DRAWN) | {"n": self.n}
        if name in DRAWN:
            settings |= self.drawing()
        return settings | (self.asking() if name == "samples" else {})

    def _maker(self, name: str) -> Images:
        """What makes the images of a row."""
        if name in ("train", "test"):  # kept too: they are read many times, and decoding pictures is slow
            return self.real(getattr(self.data, name))[0]
        if name in ("reconstructions", "train_reconstructions"):
            images = self.row("test" if name == "reconstructions" else "train")
            return lambda at: self.reconstruct(images(at))
        if name == "samples":
            labels = self.sample_labels()
            return lambda at: self.draw(at, None if labels is None else labels[at])
        if name == "true_coarse":
            return self.redraw
        model = self._code_model(name)
        return lambda at: self.tokenizer.images_of(model(at), precision=self.config.precision)

    def _code_model(self, name: str) -> Callable[[Tensor], Codes]:
        """One of the models of codes that know no neighbours, on each level."""
        models = []
        for level, (unigram, per_position) in zip(self.levels, self.frequencies, strict=True):
            uniform = torch.full((level.K,), 1 / level.K).double()
            p = {"unigram": unigram, "per_position": per_position, "uniform": uniform}[name]
            models.append(independent(p, level, SEED + len(models)))
        return lambda maps: tuple(model(maps) for model in models)

    @property
    def has_features(self) -> bool:
        """Whether there is a network to compare images in: a classifier takes classes."""
        return self.data is not None and (bool(self.label_names) or self.config.features != CLASSIFIER)

    @cached_property
    def extractor(self) -> Extractor:
        """The network that distances are measured in; raises as `extractor_of`."""
        return extractor_of(self)
