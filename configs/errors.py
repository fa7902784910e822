"""The one exception for a user's mistake."""


class UserError(Exception):
    """A mistake of the user's: the message says what was found, what was expected and what to type.

    The command line prints it without a traceback and exits with code 2.
    """
