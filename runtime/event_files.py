"""TensorBoard's event files, taken back to the checkpoint that a run goes on from.

A run that was killed has written curves beyond its last checkpoint. TensorBoard knows a mark that purges
what is newer than a step, but it purges all curves of a folder, and the stages share one; and what reads the
files by other means does not heed it. So the records themselves are taken out.

A file is a row of records: length (8 bytes), its checksum (4), the event (a protocol buffer), its
checksum (4).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .files import TEMPORARY, write_file

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

PATTERN = "events.out.tfevents.*"
OF_THE_WHOLE_RUN = ("_hparams_", "custom_scalars__config__")
"""Groups of tags that are written anew at each start."""


def take_back(folder: Path, stage: str, step: int) -> None:
    """Leave nothing of a stage beyond a step in the files of a folder, nor a half-written record at an end.

    Curves of other stages stay. Text and what is of the whole run is taken out at the step, too: each start
    writes it again.

    Args:
        stage: whose tags begin with `STAGE/` or `STAGE_`.
    """
    for half_written in folder.glob(PATTERN + TEMPORARY):
        half_written.unlink()  # TensorBoard would read it
    for path in sorted(folder.glob(PATTERN)):
        written = path.read_bytes()
        kept = b"".join(record for record, event in _records(written) if _stays(event, stage, step))
        if kept != written:
            write_file(path, kept)


def group_of(tag: str) -> str:
    """What stands before the first stroke of a tag."""
    return tag.split("/")[0]


def _records(written: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Whole records, each with the event in it; a killed process leaves half a one at the end."""
    start = 0
    while start + 12 <= len(written):
        (length,) = struct.unpack_from("<Q", written, start)
        end = start + 12 + length + 4
        if end > len(written):
            return
        yield written[start:end], written[start + 12 : end - 4]
        start = end


def _stays(serialized: bytes, stage: str, step: int) -> bool:
    """Whether an event is kept."""
    from tensorboard.compat.proto.event_pb2 import Event

    event = Event.FromString(serialized)
    return not any(_goes(value, event.step, stage, step) for value in event.summary.value)


def _goes(value: "Summary.Value", at: int, stage: str, step: int) -> bool:
    """Whether a value that was written at a step has to go."""
    group = group_of(value.tag)
    if group in OF_THE_WHOLE_RUN:
        return True
    if group != stage and not group.startswith(f"{stage}_"):
        return False
    return at > step or (at == step and value.metadata.plugin_data.plugin_name == "text")
