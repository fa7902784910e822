"""The one exception for a user's mistake, what the system refuses, and the commands that messages name."""

import errno
import shlex
from pathlib import Path


class UserError(Exception):
    """A mistake of the user's: the message says what was found, what was expected and what to type.

    The command line prints it without a traceback and exits with code 2.
    """


def refused_by_system(error: OSError) -> str:
    """What to say where the disk is full, or a file may not be written or read, and what to do."""
    place = f": {error.filename}" if error.filename else ""
    refused = f"{error.strerror or error}{place}. What was on disk before is whole"
    return f"{refused}; {REMEDIES.get(error.errno, 'mend that')}, and type the same again"


ROOM, LEAVE = "make room", "see that this user may read and write there"
REMEDIES = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "raise the shell's limit on the size of a file (ulimit -f unlimited), or take a disk whose "
    "file system holds larger ones",
    errno.EACCES: LEAVE,
    errno.EPERM: LEAVE,
    errno.EROFS: LEAVE,
}


def command_line(*words: object) -> str:
    """A command of vqprior, as a shell takes it: paths with spaces in quotation marks, and none that looks
    like a flag."""
    return shlex.join(["vqprior", *map(_word, words)])


def _word(word: object) -> str:
    return f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)
