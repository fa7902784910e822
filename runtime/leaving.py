"""The way out for one of several processes: in order after a clean end, at once after a failure.

A process that failed alone must not wait for the others. They are in a collective that it will never join,
and to take the group down is one more: under NCCL it may wait for all of them, and they for it, for hours.
Once it is gone the others hear of it: from gloo as an error of their collective, under NCCL from the
launcher, which ends them.
"""

import contextlib
import logging
import multiprocessing
import os
import re
import sys
import threading
import traceback
from typing import NoReturn

import torch
from accelerate import PartialState

from . import checkpoint_writer

# seconds for what the GPU has still to send, such as the message that all processes fail with
PATIENCE = 10.0
LOST = (
    r"(gloo|NCCL).*"
    r"((closed|reset) by peer|Broken pipe|Socket closed|Connection refused|remote process exited)"
)


def is_one_of_several() -> bool:
    """Whether this process has met others."""
    return torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def lost_a_peer(error: BaseException) -> bool:
    """Whether a collective failed because another process is gone."""
    if isinstance(error, torch.distributed.DistNetworkError | torch.distributed.DistStoreError):
        return True
    return isinstance(error, RuntimeError) and bool(re.search(LOST, str(error), re.DOTALL))


def tell(error: Exception) -> None:
    """Say on stderr what ended this process: one line where it was another one, which says more itself."""
    if lost_a_peer(error):
        rank = torch.distributed.get_rank()
        print(
            f"vqprior: process {rank} ends because another one did; see what that one said", file=sys.stderr
        )
        print(f"  (if none did, the network failed: {str(error).strip().splitlines()[0]})", file=sys.stderr)
    else:
        traceback.print_exception(error)


def leave(code: int) -> NoReturn:
    """End this process with an exit code, without Python's own end, which torch's threads do not always
    survive.

    A checkpoint in flight is written first, and after code 0 the group is taken down; on any other code this
    process may be the only one to leave.
    """
    checkpoint_writer.finish()
    _drain()
    if code == 0 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for child in multiprocessing.active_children():  # they decode pictures, and heed no signal but this
        child.kill()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def _drain() -> None:
    """Let the GPU finish what it is at, unless that waits for a process that is gone."""
    if not torch.cuda.is_initialized():
        return
    waiting = threading.Thread(target=torch.cuda.synchronize, args=(PartialState().device,), daemon=True)
    waiting.start()
    waiting.join(PATIENCE)
