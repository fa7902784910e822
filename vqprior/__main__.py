"""`python -m vqprior COMMAND`, for `accelerate launch -m` and `torchrun -m`."""

from vqprior.cli import entry

entry()
