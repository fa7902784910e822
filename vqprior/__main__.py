"""`python -m vqprior COMMAND`, for `accelerate launch -m` and `torchrun -m`."""

import sys

from vqprior.cli import main

sys.exit(main())
