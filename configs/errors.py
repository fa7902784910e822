"""The one exception for a user's mistake, and the commands that its messages name."""

import shlex
from pathlib import Path


class UserError(Exception):
    """A mistake of the user's: the message says what was found, what was expected and what to type.

    The command line prints it without a traceback and exits with code 2.
    """


def command_line(*words: object) -> str:
    """A command of vqprior, as a shell takes it: paths with spaces in quotation marks, and none that looks
    like a flag."""
    return shlex.join(["vqprior", *map(_word, words)])


def _word(word: object) -> str:
    return f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)
