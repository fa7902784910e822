"""Where the processes of a run meet, when torchrun starts lost ones again.

torchrun keeps one store for all attempts, with no prefix for each (torch 2.14; the story is in
pytorch/pytorch#135712). A process that was started again can read there the address of one that died, and
wait for it forever. So behind torchrun the main process opens a store of its own for each attempt and tells
the others its port; a port that a dead one left behind refuses the connection, and the next look finds the
new one.
"""

import hashlib
import os
import socket
import time
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, TCPStore

PORT, SAID = "vqprior/port", "vqprior/said"
PATIENCE = timedelta(seconds=5)  # for a connection to a port that may be a dead one's


def fresh_store(timeout: timedelta) -> dict[str, Any]:
    """What `init_process_group` needs so that only processes of this attempt meet; nothing where no attempt
    can follow.

    Raises:
        OSError, DistError: the main process was not found in time.
    """
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or not restarts:
        return {}
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    host, shared_port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    shared = TCPStore(host, shared_port, is_master=False, timeout=timeout)
    if rank == 0:
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timeout)
        shared.set(PORT, str(store.port))
    else:
        store = _find(host, shared, deadline=time.monotonic() + timeout.total_seconds())
        store.set_timeout(timeout)
    return {"store": store, "rank": rank, "world_size": processes}


def first_to_say(text: str) -> bool:
    """Whether no other process of this attempt has said so: all of them refuse the same command line in the
    same words, and once is enough. True where they cannot ask each other."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
    words = hashlib.sha256(text.encode()).hexdigest()
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        shared = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=PATIENCE)
        return shared.add(f"{SAID}/{attempt}/{words}", 1) == 1
    except (KeyError, ValueError, OSError, DistError):
        return True


def _find(host: str, shared: TCPStore, deadline: float) -> TCPStore:
    """Connect to the main process of this attempt."""
    while True:
        port = int(shared.get(PORT))
        try:
            # refused at once, where TCPStore waits
            socket.create_connection((host, port), PATIENCE.total_seconds()).close()
            return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=PATIENCE)
        except (OSError, DistError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
