"""The steps of the pipeline, each on its own or all in order; a step that is done is skipped by itself.

Each imports what only it needs: the networks of the other steps, and their libraries, would be waited for in
vain.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vqprior.configs import Config, dump, flatten, read_yaml
from vqprior.configs.commands import (
    App,
    Check,
    Complete,
    EncodePictures,
    Evaluation,
    Export,
    ImportCodes,
    Report,
    Score,
    TrainPrior,
)
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Sample
from vqprior.runtime import checkpoint, run_dir
from vqprior.runtime.devices import convolutions, deterministic
from vqprior.runtime.files import write_file
from vqprior.runtime.interrupt import heeded
from vqprior.runtime.lineage import codes_origin
from vqprior.runtime.lock import lock
from vqprior.runtime.processes import (
    device_of_process,
    is_main,
    leave_if_told,
    main_first,
    on_main,
    say,
    share_of_process,
)
from vqprior.runtime.run_dir import RunDir

from . import onward
from .listing import figures
from .onward import Words
from .terminal import told

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vqprior.runtime.checkpoint import Checkpoint
    from vqprior.runtime.data import DataSet
    from vqprior.stage2_prior.prior import Prior
    from vqprior.stage2_prior.train import Preview

PREVIEW_SEED = 0
Settings = TypeVar("Settings", bound=Config)  # those of a run, or with those of a command


def _settled(config: Settings) -> Settings:
    """The settings with a precision in place of `auto`: that of the run, where it has begun, else one of this
    device; and so with a range that the run has measured."""
    from vqprior.runtime.launch import computes_bf16, settled

    device, run = device_of_process(), RunDir(Path(config.out))
    # what a start has stored that learnt nothing may be of other pictures
    if stored := on_main(lambda: run.config() if run_dir.is_run_dir(run.path) and run.has_begun else None):
        if config.data.range == "auto":
            config = replace(config, data=replace(config.data, range=stored.data.range))
        if config.precision == "auto":
            config = replace(config, precision=stored.precision)
    chosen = settled(config, device).precision
    if chosen == "bf16" and not computes_bf16(device):
        say(
            f"bf16 is emulated on this {device.type}, far slower than fp32; a new run takes --precision no "
            "(or auto)"
        )
    return replace(config, precision=chosen)


@contextmanager
def _started(config: Config) -> Iterator[RunDir]:
    """A run that is begun, or gone on with; a command that is refused leaves its settings as they were."""
    from vqprior.runtime.services import refuse_missing

    refuse_missing(config.tracker)
    run, before = RunDir(Path(config.out)), on_main(run_dir.start, config)
    try:
        yield run
    except UserError:
        if is_main():
            run_dir.take_back(run, before)
        raise


@contextmanager
def _started_with_data(config: Config) -> Iterator[tuple[Config, RunDir, "DataSet"]]:
    """The same of settled settings, and the pictures; the range that was measured is kept with the
    settings."""
    from vqprior.runtime.data import refuse_blank

    on_main(_refuse_misfits, config)
    with _started(config) as run:
        data = _data(config, run)
        if not run.stage1.exists():
            refuse_blank(data.train)
        if data.data.range != config.data.range:
            config = replace(config, data=data.data)
            on_main(lambda: write_file(run.config_file, dump(config)))
        yield config, run, data


def _refuse_misfits(config: Config) -> None:
    """Refuse a new run among its pictures, weights to begin from that do not fit (stage1.init), and steps
    that cannot be recorded, before a run is made and pictures read."""
    from vqprior.runtime.data.folder import refuse_among_pictures
    from vqprior.stage1_vqvae.adversary import refuse_recorded
    from vqprior.stage1_vqvae.begin import source_of
    from vqprior.stage1_vqvae.train import stays

    run = RunDir(Path(config.out))
    newest = next(checkpoint.readable(run.stage1), None)
    if newest is None:
        refuse_among_pictures(run.path, config.data)
        source_of(config)
    if newest is None or (newest.step < config.stage1.steps and not stays(config, run)):
        refuse_recorded(config)


def _refuse_prior(config: Config, run: RunDir, label_names: Sequence[str]) -> None:
    """Refuse a prior to begin from that will not fit (stage2.init) before stage one is trained."""
    from vqprior.runtime.lineage import lineage
    from vqprior.stage1_vqvae.begin import source_of as vqvae_to_begin_from
    from vqprior.stage2_prior.begin import source_of

    vqvaes: list[Checkpoint | None] = []
    for level in range(config.stage1.levels):
        if config.stage2_of(level).init is None or [*checkpoint.readable(run.stage2_of(level))]:
            continue
        vqvaes = vqvaes or [*checkpoint.readable(run.stage1)] or [vqvae_to_begin_from(config)]
        origins = [origin for saved in vqvaes if saved for origin in lineage(saved)]
        source_of(config, label_names, origins, level)


def _pictures(config: Config) -> str:
    """Where the pictures are."""
    from vqprior.runtime.data import roots_of

    return roots_of(config.data)


def _told(
    command: str,
    config: Config,
    reads: object,
    writes: object,
    *,
    after: Callable[[], Words] | None = None,
) -> AbstractContextManager[None]:
    """The first and last lines of a step of a run; what comes after it is the next step unless it is said."""
    run = RunDir(Path(config.out))
    after = after or partial(onward.after_training, run, config.stage1.levels)
    return told(command, reads, writes, run=run, precision=config.precision, after=after)


def _data(config: Config, run: RunDir) -> "DataSet":
    """The data set of a run, and what it is in words.

    The main process is first, so that a download happens once, and the run's record of its pictures is there
    for all.
    """
    from vqprior.runtime.data import load

    refuse_without_pictures(config)
    newest = on_main(checkpoint.newest, run.stage1)
    expected = newest.meta["data_fingerprint"] if newest else None
    # Before anything was learnt, other settings may choose other pictures: the main process then makes the
    # record anew, and the others go by it
    begun = newest is not None or not is_main()
    quiet = not is_main()
    data = main_first(load, config.data, run=run.path, expected=expected, begun=begun, quiet=quiet)
    say(data.summary())
    return data


def refuse_without_pictures(config: Config) -> None:
    """Refuse, with a UserError, a run of imported codes where pictures are needed."""
    if config.data.source == "codes":
        from vqprior.sampling.decoding import refuse_imported

        refuse_imported()


def import_codes(file: Path, settings: ImportCodes) -> None:
    """Codes of others -> a run."""
    from vqprior.runtime.import_codes import import_codes as import_from

    with told("import-codes", file, settings.out, after=settings.onward):
        on_main(import_from, file, settings)


def _tell_skipped(run: RunDir) -> None:
    """Say how many pictures the run went on without."""
    from vqprior.runtime.data.record import SKIPPED, noted
    from vqprior.runtime.data.source import counted

    if skipped := on_main(noted, run.path / SKIPPED):
        count = counted(len(skipped), "picture")
        say(f"{count} left out that could not be read; {run.path / SKIPPED} says why")


@contextmanager
def training_on(device: "torch.device", config: Config) -> Iterator[None]:
    """How the training loops compute: convolutions, and sums whose order would be left to chance."""
    tried = not config.deterministic
    with convolutions(device, config.precision, tried=tried), deterministic(config.deterministic):
        yield


def train_vqvae(config: Config) -> None:
    """Stage one."""
    from vqprior.stage1_vqvae.train import train

    config = _settled(config)
    with (
        _told("train-vqvae", config, _pictures(config), RunDir(Path(config.out)).stage1),
        _started_with_data(config) as (config, run, data),
    ):
        with heeded(), training_on(device_of_process(), config):
            train(config, run, data)
        _tell_skipped(run)


def encode(config: Config) -> None:
    """Images -> code maps."""
    from vqprior.stage1_vqvae.encode import encode as encode_images

    run, config = run_dir.existing(config), _settled(config)
    run_dir.refuse_contradictions(run, config, but="precision")
    with _told("encode", config, _pictures(config), run.codes):
        on_main(lock, run.path)
        data = _data(config, run)
        with heeded():
            encode_images(config, run, data)
        _tell_skipped(run)


def encode_pictures(config: Config, settings: EncodePictures) -> None:
    """Other pictures -> files of their codes."""
    refuse_without_pictures(config)
    from vqprior.sampling.encode_pictures import encode_pictures

    run = run_dir.existing(config)
    origin = on_main(codes_origin, run)
    precision = origin["precision"] if origin else "no"
    after = partial(onward.after_encoding, run, settings, config.stage1.levels)
    with (
        told("encode", settings.pictures, settings.out, run=run, precision=precision, after=after),
        heeded(),
    ):
        encode_pictures(settings, run)


def score(config: Config, settings: Score) -> None:
    """Other pictures -> how unusual they are."""
    refuse_without_pictures(config)
    from vqprior.sampling.score_pictures import score_pictures

    run = run_dir.existing(config)
    after, precision = partial(onward.to_play, run), settings.precision
    with (
        told("score", settings.pictures, settings.out, run=run, precision=precision, after=after),
        heeded(),
    ):
        score_pictures(settings, run)


def train_prior(config: TrainPrior) -> None:
    """Stage two, of one level of codes or of all."""
    run, chosen = run_dir.existing(config), config.level  # refuses a run that was never begun
    config = _settled(config.of_run())
    levels = range(config.stage1.levels) if chosen is None else [chosen]
    folders = ", ".join(str(run.stage2_of(level)) for level in levels)
    with (
        _told("train-prior", config, run.codes, folders),
        _started(config),
        heeded(),
        training_on(device_of_process(), config),
    ):
        _train_priors(config, run, levels)


def _train_priors(config: Config, run: RunDir, levels: Iterable[int]) -> None:
    """Stage two, of these levels in turn."""
    from vqprior.stage2_prior.train import train

    for level in levels:
        train(config, run, preview_for(config, run, level), level=level)


def complete(config: Config, settings: Complete) -> None:
    """Fill in the hidden part of a picture: little work, which the main process does."""
    refuse_without_pictures(config)
    from vqprior.sampling.complete import complete as complete_picture

    run = run_dir.existing(config)
    out, after = settings.folder(run.path), partial(onward.to_play, run)
    with told("complete", settings.image, out, run=run, precision=settings.precision, after=after):
        on_main(complete_picture, settings, run)


def evaluate(config: Evaluation) -> None:
    """Measure a run."""
    from vqprior.evaluation.evaluate import evaluate as measure

    run, config = run_dir.existing(config), _settled(config)
    run_dir.refuse_contradictions(run, config, but="precision")
    imported = config.data.source == "codes"
    after = partial(onward.after_measuring, run, config.data, config.stage1.levels)
    with _told("evaluate", config, run.codes if imported else _pictures(config), run.metrics, after=after):
        measure(config, run, None if imported else _data(config, run))
        _tell_skipped(run)
        say(f"evaluate: {run.metrics}: {on_main(figures, run)}")


def check(config: Check, target: str, default: Check, flags: Sequence[str]) -> None:
    """Look at the pictures of a run, or of one that is to begin as a target and flags say; what these give
    stays in what is suggested."""
    from vqprior.runtime.data.check import check as check_pictures

    refuse_without_pictures(config)
    words = (flag.partition("=")[0] for flag in flags if flag.startswith("--"))
    typed = {word.removeprefix("--").replace("-", "_") for word in words}
    in_file = set(flatten(read_yaml(Path(target)))) if Path(target).is_file() else set()
    named = typed.union(in_file).difference(("out", "write", "sheet"))
    given = {name: value for name, value in flatten(asdict(config)).items() if name in named}
    settings: dict[str, Any] = {}
    after = partial(onward.after_checking, config, target, default, settings)
    with told("check", _pictures(config), config.sheet_file, after=after):
        found = on_main(check_pictures, config, given)
        settings |= {name: value for name, value in found.items() if name in typed or name not in given}


def report(config: Report) -> None:
    """Write the page of a run."""
    from vqprior.evaluation.report import report as write_report

    run, config = run_dir.existing(config), _settled(config)
    run_dir.refuse_contradictions(run, config, but="precision")
    after = partial(onward.to_share, run)
    with _told("report", config, _pictures(config), config.page(run.path), after=after):
        write_report(config, run, _data(config, run))


def sample(settings: Sample, config: Config) -> None:
    """New pictures."""
    from vqprior.sampling.generate import generate

    run = run_dir.existing(config)
    reads, out = f"{settings.images:,} images of {run.path}", Path(settings.out or run.samples)
    after = partial(onward.after_sampling, run, out)
    with told("sample", reads, out, run=run, precision=settings.precision, after=after), heeded():
        generate(settings, run)


def app(config: Config, settings: App) -> None:
    """The page in the browser."""
    from vqprior.app.serve import serve

    run = run_dir.existing(config)
    with told("app", run.path, "a page in the browser", run=run, precision=config.sample.precision):
        serve(settings, run)


def export(config: Config, settings: Export) -> None:
    """Write what sampling needs of a run to a folder of its own, with a model card."""
    from vqprior.evaluation.card import card
    from vqprior.sampling.export import export as export_run

    run = run_dir.existing(config)
    out = Path(settings.out)
    after = lambda: ("sample", out, "--images", 64, "--out", onward.free(out, "samples"))
    with told("export", run.path, out, run=run, precision="no", after=after):
        on_main(export_run, settings, run, lambda out: card(out, run, settings))


def run(config: Config) -> None:
    """All steps in order, and where to look."""
    from vqprior.evaluation.evaluate import evaluate as measure
    from vqprior.sampling.generate import generate
    from vqprior.sampling.labels import label_of_text
    from vqprior.stage1_vqvae.encode import encode as encode_images
    from vqprior.stage1_vqvae.train import train as train_stage1

    for stage in (config.stage1, *map(config.stage2_of, range(config.stage1.levels))):
        # refuse now what would be refused hours later
        share_of_process().slice(stage.batch_size, stage.accumulate)
    config = _settled(config)
    out = config.out
    with (
        _told("run", config, _pictures(config), out, after=partial(onward.to_measure, RunDir(Path(out)))),
        _started_with_data(config) as (config, run, data),
    ):
        inference = config.for_inference()
        if config.sample.label:
            label_of_text(config.sample.label, data.label_names)
        if config.sample.guidance != 1 and not data.label_names:
            raise UserError(
                f"sample.guidance is {config.sample.guidance:g}, which takes classes, and these pictures "
                "have none; type --sample.guidance 1, or give each class a folder"
            )
        on_main(_refuse_prior, config, run, data.label_names)
        in_training = partial(training_on, device_of_process(), config)
        with heeded():
            with in_training():
                train_stage1(config, run, data)
            encode_images(_as_encoded(inference, run), run, data)
            with in_training():
                _train_priors(config, run, range(config.stage1.levels))
            pictures = generate(config.sample, run)
            leave_if_told("run")  # what comes next heeds nothing, and ends at once
        measure(Evaluation.of(inference, only=("reconstruction", "likelihood")), run, data)
        _tell_skipped(run)
        reconstructions = run.path / "reconstructions.png"
        on_main(save_reconstructions, inference, run, data, reconstructions)
        say(
            f"\nsamples          {pictures / 'grid.png'}\nreconstructions  {reconstructions}\n"
            f"metrics          {run.metrics}: {on_main(figures, run)}\n"
            f"curves           tensorboard --logdir {shlex.quote(str(run.path.parent))}"
        )


def _as_encoded(config: Config, run: RunDir) -> Config:
    """With the precision in which the codes of a run were made, where there are any."""
    origin = on_main(codes_origin, run)
    return replace(config, precision=origin["precision"]) if origin else config


STEPS: dict[str, Callable[[Config], None]] = {
    "run": run,
    "train-vqvae": train_vqvae,
    "encode": encode,
    "train-prior": train_prior,
}

MEASURES: dict[str, Callable[[Any], None]] = {"evaluate": evaluate, "report": report}

LOOKS: dict[str, Callable[[Config, Any], None]] = {
    "app": app,
    "complete": complete,
    "encode": encode_pictures,
    "export": export,
    "score": score,
}


def preview_for(config: Config, run: RunDir, level: int = 0) -> "Preview | None":
    """What draws the sample grids that the training of a level's prior logs: always the same images, so that
    they can be compared. None where the priors of the other levels are still missing."""
    import torch

    from vqprior.runtime.code_maps import CodeMaps
    from vqprior.runtime.evaluating import evaluating
    from vqprior.runtime.pictures import columns_of, grid
    from vqprior.sampling.choice import Sampling
    from vqprior.sampling.decoding import Imported
    from vqprior.sampling.networks import Networks
    from vqprior.stage1_vqvae.vqvae import find_vqvae, load_vqvae
    from vqprior.stage2_prior.priors import load_prior

    header = CodeMaps(run.codes, verify=False).header
    others = [other for other in range(len(header.levels)) if other != level]
    if not on_main(lambda: all(checkpoint.is_evaluated(run.stage2_of(other)) for other in others)):
        return None
    device = device_of_process()
    there = {other: load_prior(on_main(checkpoint.best, run.stage2_of(other)), device) for other in others}
    if config.data.source == "codes":
        shown = Imported.of(config, header.levels)
        shown.refuse_unsound()
    else:
        shown = load_vqvae(find_vqvae(run.stage1, header.vqvae, warn=say), device_of_process())

    @torch.no_grad()
    def preview(prior: "Prior", step: int) -> "Tensor":
        priors = [there.get(other, prior) for other in range(len(header.levels))]
        networks = Networks(shown, priors, header.label_names)
        columns = columns_of(len(header.label_names))
        numbers = torch.arange(columns * 4)
        sampling = Sampling(PREVIEW_SEED, batch_size=len(numbers))
        with evaluating(prior):
            return grid(networks.draw(numbers, networks.labels_for(numbers), sampling), columns)

    return preview


def save_reconstructions(config: Config, run: RunDir, data: "DataSet", path: Path) -> None:
    """A picture of test images, each row above its reconstructions."""
    from vqprior.runtime.pictures import save_png
    from vqprior.stage1_vqvae.train import reconstruct, spread
    from vqprior.stage1_vqvae.vqvae import load_vqvae

    model = load_vqvae(checkpoint.best(run.stage1), device_of_process())
    save_png(path, reconstruct(model, data.test.images(spread(len(data.test), 32)), config))
