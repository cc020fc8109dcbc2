"""Errors that a user can act on."""


class UserError(ValueError):
    """Bad input: the message is one line that names what was wrong, the value, and what to do.

    Pages show the message as it is; the command line prints it and exits with 2.
    """


class StaleError(UserError):
    """Two fingerprints that should agree do not; the message carries both."""


class RunFailedError(RuntimeError):
    """A run ended in failure; the command line prints the message and exits with 1."""
