"""vqprior: images -> maps of discrete codes -> a prior over them -> new images.

>>> from vqprior import Generator
>>> images = Generator.from_run("runs/mnist5k").sample(labels=[3] * 16, seed=0)  # uint8 [16, 28, 28, 1]
"""

from importlib import import_module

_HOMES = {
    "CodeMaps": "runtime.code_maps",
    "Config": "configs",
    "Generator": "sampling.generator",
    "PixelCNN": "stage2_prior.pixelcnn",
    "UserError": "configs",
    "VQVAE": "stage1_vqvae.vqvae",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: the command line answers a typo without waiting for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
