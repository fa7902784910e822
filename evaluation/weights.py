"""What tells the networks of a run from others: whether figures are of those that it has now."""

from collections.abc import Iterable, Sequence
from typing import Any

from vqprior.runtime.checkpoint import Checkpoint


def fingerprints(vqvae: str, priors: Iterable[Checkpoint]) -> dict[str, Any]:
    """The fingerprints that tell networks from others, as settings and `metrics.json` have them; None of a
    prior that is not trained."""
    prior, *finer = [saved.fingerprint for saved in priors] or [None]
    return {"vqvae": vqvae, "prior": prior, **({"finer_priors": finer} if finer else {})}


def is_of(protocol: dict[str, Any], vqvae: str, priors: Sequence[Checkpoint]) -> bool:
    """Whether the figures of `metrics.json` with this protocol are of these networks. What is not noted is
    not compared: `models/clothing64` names no finer priors there."""
    ours = fingerprints(vqvae, priors)
    noted = {"prior": None} | {name: protocol[name] for name in ours if name in protocol}
    steps = [step for name, step in protocol.get("steps", {}).items() if name != "stage1"]
    return noted.items() <= ours.items() and steps in ([], [saved.step for saved in priors])
