"""Curves, pictures and text for TensorBoard, written by the main process only; and for other trackers.

A run has up to three folders of event files, whose names are those that TensorBoard shows:

    RUN               training: curves, pictures, text, settings (HParams), the codebook (projector)
    RUN/validation    the held-out split
    RUN/by_place      the model that knows how often each code stands at each place, and nothing else

One tag in two of them is two curves in one chart. A tag is GROUP/NAME, a group a stage, or a stage and a word
(`stage1`, `stage1_codes`, `stage1_loss`): TensorBoard sorts by letters, so that what decides is first.
Other trackers (`tracker`, see services.py) have curves, settings and pictures, a tag of another folder than
the first with its name behind it: `stage1/mse_validation`.
"""

import threading
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from vqprior import configs
from vqprior.configs import Config
from vqprior.configs.schema import Stage1

from .data.source import printable
from .event_files import PATTERN, take_back
from .projector import write_codebook
from .services import Services, plain

Series = Literal["", "validation", "by_place"]
SERIES: tuple[Series, ...] = ("", "validation", "by_place")

_say_error_of_thread = threading.excepthook


def _say_other_error_of_thread(error: threading.ExceptHookArgs) -> None:
    """No traceback where TensorBoard's own thread finds the disk full: `Tracker.flush` says so in words."""
    if not (isinstance(error.exc_value, OSError) and type(error.thread).__module__.startswith("tensorboard")):
        _say_error_of_thread(error)


def _wait_for_next_second(folder: Path) -> None:
    """TensorBoard reads event files in the order of their names, which hold whole seconds, then the host and
    the process: one that is begun in the same second as that of a killed run could come before it."""
    begun = [path.name.split(".")[3] for path in folder.glob(PATTERN)]
    newest = max((int(seconds) for seconds in begun if seconds.isdigit()), default=0)
    if time.time() < newest + 1 <= time.time() + 2:
        time.sleep(newest + 1 - time.time())


class Tracker:
    """Writes the event files of one stage of a run, and tells other trackers; on other processes than the
    main one it does nothing.

    Only `settings`, `flush` and `close` fail on a full disk, so that a loop can take the error where all
    processes hear of it.

    Args:
        run: the run directory.
        stage: `stage1`, `stage2`, `stage2-1`, ...: what the tags begin with.
        step: the step that training goes on after.
        active: whether this is the main process.
    """

    def __init__(self, run: Path, stage: str, *, step: int, active: bool):
        self.run, self.stage, self.start, self.active = run, stage, step, active
        self.services: Services | None = None
        self.writes_events = active
        self.writers: dict[Series, Any] = {}
        if active:
            threading.excepthook = _say_other_error_of_thread

    def scalars(self, step: int, values: dict[str, float], series: Series = "") -> None:
        """One point of each named curve; names are as in `tag`."""
        for name, value in values.items():
            self._add("scalar", self.tag(name), value, step, series=series)
        if self.services:
            ending = f"_{series}" if series else ""
            self.services.scalars(step, {self.tag(name) + ending: value for name, value in values.items()})

    def picture(self, step: int, name: str, image: Tensor | np.ndarray) -> None:
        """A picture [H, W, C], uint8."""
        self._add("image", self.tag(name), np.asarray(image), step, dataformats="HWC")
        if self.services:
            self.services.picture(step, self.tag(name), np.asarray(image))

    def histogram(self, step: int, name: str, values: Tensor) -> None:
        """The distribution of a tensor's values."""
        self._add("histogram", self.tag(name), values.cpu(), step)

    def settings(self, step: int, config: Config, command: str) -> None:
        """Begin with the trackers that the configuration names; event files lose what a killed run wrote
        beyond the step.

        TensorBoard has the configuration and the command as text, the settings that are not the default as
        HParams, and which charts stand side by side (the custom scalars).

        Raises:
            UserError: another tracker cannot begin.
            OSError: the disk is full.
        """
        if not self.active:
            return
        for series in SERIES:
            take_back(self.run / series, self.stage, self.start)
        self.writes_events = "tensorboard" in config.tracker
        others = [name for name in dict.fromkeys(config.tracker) if name != "tensorboard"]
        self.services = Services(others, self.run, self.stage, resumed=self.start > 0, config=config)
        if not self.writes_events:
            return
        for name, text in (("settings/config", configs.dump(config)), ("settings/command", command)):
            self._add("text", self.tag(name), "    " + printable(text).replace("\n", "\n    "), step)
        self._add("custom_scalars", charts(config.stage1))
        with suppress(OSError):
            self._writer("").file_writer.add_summary(_session(config))

    def codebook(self, name: str, columns: dict[str, Tensor], vectors: Tensor, thumbnails: Tensor) -> None:
        """Put a codebook into the projector: the newest one takes the place of the one before.

        Args:
            name: of its folder in the run directory, `codebook` and what tells several apart.
            columns: what is said of each of n codes, by name, [n] each.
            vectors: of the codes [n, D].
            thumbnails: what each is decoded to, [n, C, s, s] uint8.
        """
        if self.writes_events:
            with suppress(OSError):
                write_codebook(self.run, name, columns, vectors, thumbnails)

    def tag(self, name: str) -> str:
        """`mse` of stage1 -> `stage1/mse`, `codes/usage` -> `stage1_codes/usage`."""
        return f"{self.stage}_{name}" if "/" in name else f"{self.stage}/{name}"

    def _writer(self, series: Series) -> Any:
        """The file of a series, begun at its first event."""
        if series not in self.writers:
            from torch.utils.tensorboard import SummaryWriter

            _wait_for_next_second(self.run / series)
            self.writers[series] = SummaryWriter(str(self.run / series))
        return self.writers[series]

    def _add(self, kind: str, *arguments: Any, series: Series = "", **options: Any) -> None:
        if self.writes_events:
            with suppress(OSError):
                getattr(self._writer(series), f"add_{kind}")(*arguments, **options)

    def flush(self) -> None:
        """Write out what is buffered; called before a checkpoint, so that no curve ends before its
        checkpoint."""
        for writer in self.writers.values():
            writer.flush()

    def close(self) -> None:
        """Write out and close the files."""
        for writer in self.writers.values():
            writer.close()
        if self.services:
            self.services.close()


def charts(settings: Stage1) -> dict[str, dict[str, list[Any]]]:
    """The layout of the custom scalars of a run with this stage one: charts by their titles, each with the
    tags (regular expressions) whose curves of all folders it draws."""
    stage1 = {
        "reconstruction error, train and validation": _chart("^stage1/mse$"),
        "codebook perplexity": _chart("^stage1_codes/perplexity"),
        "share of the codes in use": _chart("^stage1_codes/usage"),
        "terms of the loss": _chart("^stage1_loss/"),
    }
    if settings.adversarial:
        stage1["the adversary's logits of pictures and reconstructions"] = _chart("^stage1_adversary/logits")
    levels = settings.levels
    found = {"Stage 1: pictures to codes": stage1}
    for level in range(levels):
        stage = f"stage2-{level}" if level else "stage2"
        found[f"Stage 2: the prior{f' of level {level}' if levels > 1 else ''}"] = {
            "bits/code, train, validation and the model by place": _chart(f"^{stage}/bits_per_code$"),
            "bits/code of the batches, with dropout": _chart(f"^{stage}_loss/bits_per_code$"),
        }
    return found


def _chart(tags: str) -> list[Any]:
    """Lines of the tags that the regular expression fits."""
    return ["Multiline", [tags]]


def _session(config: Config) -> Any:
    """The HParams of a run: its settings that are not the default."""
    from torch.utils.tensorboard.summary import hparams

    default = configs.flatten(asdict(Config()))
    chosen = configs.flatten(asdict(replace(config, out=None, sample=Config().sample)))
    differing = {key: value for key, value in chosen.items() if value != default[key]}
    # Of the experiment, the session and its end: TensorBoard collects the first over all runs by itself, or
    # settings that only some of them have would not be shown
    _, session, _ = hparams({key: plain(value) for key, value in differing.items()}, {})
    return session
