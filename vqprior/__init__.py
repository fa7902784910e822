"""vqprior: images -> maps of discrete codes -> a prior over them -> new images.

>>> from vqprior import Generator
>>> images = Generator.from_run("runs/mnist5k").sample(labels=[3] * 16, seed=0)  # uint8 [16, 28, 28, 1]
"""

from importlib import import_module
from pathlib import Path

# In a clone the other packages stand beside this one: whatever is installed, `python -m vqprior` there runs
# the clone
if (_clone := Path(__file__).resolve().parents[1] / "stage1_vqvae").is_dir():
    __path__.append(str(_clone.parent))

_HOMES = {
    "CodeMaps": "vqprior.runtime.code_maps",
    "Config": "vqprior.configs",
    "Generator": "vqprior.sampling.generator",
    "PixelCNN": "vqprior.stage2_prior.gated_pixelcnn.model",
    "Tokenizer": "vqprior.sampling.tokenizer",
    "UserError": "vqprior.configs",
    "VQVAE": "vqprior.stage1_vqvae.vqvae",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: the command line answers a typo without waiting for
    torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
