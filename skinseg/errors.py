"""The exceptions that are a message to the user and not a bug."""


class SkinsegError(Exception):
    """A mistake that the user can mend: the commands print it without a traceback.

    The text names the file or key, what was found, what was expected and what to do.

    Attributes:
        exit_code: What the command exits with.
    """

    exit_code = 2


class InterruptedRunError(SkinsegError):
    """The user pressed Ctrl-C, or something sent SIGTERM."""

    exit_code = 130
