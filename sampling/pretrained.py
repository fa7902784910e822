"""A folder of weights by its path, or by its name on a model hub.

Only safetensors, JSON and YAML are fetched: nothing that could be executed, and nothing is unpickled.
"""

from pathlib import Path

from vqprior.configs.errors import UserError
from vqprior.runtime.run_dir import RunDir, is_run_dir

FETCHED = ["*.safetensors", "*.json", "*.yaml"]


def pretrained_folder(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a path, or of OWNER/NAME on the Hugging Face hub, fetched if it is not in the cache.

    Args:
        revision: a branch, tag or commit of the hub.

    Raises:
        UserError: there is no such folder or name, it cannot be fetched, it is no export of vqprior, or it
            names code of its own that would have to be run.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = _fetched(str(name), revision)
    elif revision is not None:
        raise UserError(f"{name} is a folder here, which has no revision {revision!r}: leave revision out")
    if not is_run_dir(folder):
        raise UserError(
            f"{name} holds no weights of vqprior: it has no config.yaml; vqprior export makes such a folder"
        )
    if decoder := RunDir(folder).config().data.decoder:
        raise UserError(
            f"{name} decodes its codes by {decoder}, code of its own, which from_pretrained does not run; "
            f"once you trust it: Generator.from_run({str(folder)!r})"
        )
    return folder


def _fetched(name: str, revision: str | None) -> Path:
    """The folder in the cache of the hub's client."""
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise UserError(
            f"{name} is not a folder here, and fetching it from a hub needs {error.name}: pip install "
            "'vqprior[hub]'"
        ) from error
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=FETCHED))
    except errors.HFValidationError as error:
        raise UserError(f"{name} is neither a folder here nor a name on a hub, OWNER/NAME") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{name} has no revision {revision!r} on the hub") from error
    except errors.RepositoryNotFoundError as error:  # private ones look the same, and gated ones are a kind
        raise UserError(
            f"there is no folder {name} here, and none on the hub that you may read; for a private one log "
            "in first: hf auth login"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError) as error:
        raise UserError(
            f"{name} is neither a folder here nor in the cache of the hub's client, and the hub does not "
            f"answer ({type(error).__name__}); connect, or give the path of a copy"
        ) from error
