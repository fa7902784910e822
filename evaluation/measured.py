"""Figures on disk: of each part a file with all that they depend on, so that what is done is kept."""

from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vqprior.configs.schema import Precision
from vqprior.runtime.devices import fp32_precision, name_of
from vqprior.runtime.files import read_json, write_json
from vqprior.runtime.processes import device_of_process
from vqprior.runtime.run_dir import git_commit, package_version

from .features import CLASSIFIER
from .part import Settings
from .tables import Figures


class Measured(NamedTuple):
    """A part that was measured."""

    settings: Settings
    figures: Figures
    by: dict[str, Any]  # version, device and so on

    @property
    def protocol(self) -> dict[str, Any]:
        """How it was measured, as `metrics.json` has it."""
        return self.settings | {"by": self.by}


def read_part(folder: Path, name: str) -> Measured | None:
    """A part that is there, of another format too; None where there is none."""
    content = read_json(folder / f"{name}.json")
    try:
        return Measured(dict(content["asked"]), content["figures"], content.get("by", {}))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def write_part(folder: Path, name: str, settings: Settings, figures: Figures) -> None:
    """Keep the figures of a part."""
    by = versions(settings["precision"], settings.get("features", CLASSIFIER))
    write_json(folder / f"{name}.json", {"asked": settings, "figures": figures, "by": by})


def versions(precision: Precision, features: str = CLASSIFIER) -> dict[str, Any]:
    """What measures a part here: figures that are kept may be of an older version than those beside them."""
    device = device_of_process()
    here = {
        "version": package_version(),
        "commit": git_commit(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),  # a trained classifier is a function of them, up to rounding
        "device": device.type,
        "device_name": name_of(device),
        "fp32_precision": fp32_precision(precision),
    }
    return here if features == CLASSIFIER else here | {"torch-fidelity": version("torch-fidelity")}
