"""The exceptions that are a message to the user and not a bug."""

from collections.abc import Sequence


class SkinsegError(Exception):
    """A mistake that the user can correct: the commands print it without a traceback.

    The text names the file or key, what was found, what was expected and what to do.

    Attributes:
        exit_code: What the command exits with.
    """

    exit_code = 2


class InterruptedRunError(SkinsegError):
    """The user pressed Ctrl-C, or something sent SIGTERM."""

    exit_code = 130


class ConfigurationError(SkinsegError):
    """A configuration is refused.

    Attributes:
        problems: A sentence for each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        count = "A problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n  ".join([f"{count} in the configuration:", *problems]))
        self.problems = tuple(problems)
