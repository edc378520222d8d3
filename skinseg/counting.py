"""Numbers with the word for what they count, in one and in many."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """Writes how many of something there are, as in "1 image" and "1,234 images".

    Args:
        number: The number.
        one: What stands behind the number 1, such as "image" or "image is".
        many: What stands behind any other. None: `one` with an s.

    Returns:
        The number, with separators of thousands, and its word.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def often(times: int) -> str:
    """Writes how often something was done: once, twice, 3 times."""
    return {1: "once", 2: "twice"}.get(times, f"{times:,} times")
