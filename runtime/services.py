"""Trackers besides TensorBoard, through accelerate's classes: Weights & Biases and MLflow.

Each stage of a run is a run there, since each counts its own steps, named by the run directory and the stage.
RUN/trackers.json knows them by their ids, so that a stage that goes on goes on there, too.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import GeneralTracker, MLflowTracker, WandBTracker

from vqprior import configs
from vqprior.configs import Config
from vqprior.configs.errors import UserError

from .data.source import printable
from .files import read_json, write_json
from .processes import say

PROJECT = "vqprior"  # of wandb, and the experiment of MLflow, unless their own variables name another
KNOWN = "trackers.json"  # in a run directory: {stage: {service: id}}


def refuse_missing(trackers: Sequence[str]) -> None:
    """Refuse, with a UserError, a tracker whose package is not installed."""
    for name in trackers:
        if find_spec(name) is None:
            raise UserError(
                f"tracker {name} needs the package {name}: pip install 'vqprior[{name}]', or leave it out: "
                "--tracker tensorboard"
            )


class MLflow(MLflowTracker):
    """accelerate's class has no images."""

    def log_images(self, values: dict[str, list[np.ndarray]], step: int) -> None:
        import mlflow

        for name, (image,) in values.items():
            mlflow.log_image(image, key=name, step=step)


class Services:
    """What one stage sends to the trackers besides TensorBoard; on the main process only.

    A service that fails once training runs is told of once, and training goes on.

    Args:
        names: of the services.
        run: the run directory.
        stage: as for `Tracker`.
        resumed: whether the stage goes on after a checkpoint; one that begins anew is a new run there.
        config: what the run is shown with.

    Raises:
        UserError: a service cannot begin.
    """

    def __init__(self, names: Sequence[str], run: Path, stage: str, *, resumed: bool, config: Config):
        known: dict[str, dict[str, str]] = read_json(run / KNOWN) or {}
        ids = known.get(stage, {}) if resumed else {}
        self.begun: dict[str, GeneralTracker] = {}
        self.failed: set[str] = set()
        for name in names:
            try:
                self.begun[name] = made = begin(name, run, stage, ids.get(name))
                if name not in ids:  # MLflow takes no setting twice
                    made.store_init_configuration(settings_of(config))
            except Exception as error:  # of their own kinds, or of the network
                anew = f"; without {run / KNOWN} it begins a new run there" if name in ids else ""
                raise UserError(
                    f"tracker {name} cannot begin ({in_a_line(error)}). docs/tensorboard.md has what it "
                    f"needs; --tracker tensorboard goes without it{anew}"
                ) from error
        if self.begun:
            write_json(run / KNOWN, known | {stage: ids | {name: self._id(name) for name in self.begun}})

    def _id(self, name: str) -> str:
        of_run = self.begun[name].tracker
        return of_run.id if name == "wandb" else of_run.info.run_id

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Points of curves, by their whole names."""
        self._send(lambda made: made.log(values, step=step))

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture [H, W, C], uint8."""
        self._send(lambda made: made.log_images({name: [image]}, step=step))

    def close(self) -> None:
        """Send what is left, and end the runs there."""
        self._send(lambda made: made.finish())

    def _send(self, send: Callable[[Any], None]) -> None:
        for name, made in self.begun.items():
            try:
                send(made)
            except Exception as error:  # training is worth more than its curves
                if name not in self.failed:
                    say(f"tracker {name}: {in_a_line(error)}; what it does not take is missing there")
                self.failed.add(name)


def begin(name: str, run: Path, stage: str, known: str | None) -> GeneralTracker:
    """The run of a stage in a service: the one of this id, else a new one."""
    group = run.resolve().name
    if name == "wandb":
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        resume = dict(id=known, resume="allow") if known else {}
        made: GeneralTracker = WandBTracker(
            project, name=f"{group} {stage}", group=group, dir=str(run), **resume
        )
    else:
        made = MLflow(PROJECT, run_id=known, run_name=f"{group} {stage}")
    made.start()
    return made


def settings_of(config: Config) -> dict[str, bool | int | float | str]:
    """All settings by their flags."""
    return {key: plain(value) for key, value in configs.flatten(asdict(config)).items()}


def plain(value: Any) -> bool | int | float | str:
    """A setting as trackers take it."""
    return value if isinstance(value, bool | int | float) else printable(str(value))


def in_a_line(error: Exception) -> str:
    """An error of somebody else's as part of a sentence."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
