"""Which known word somebody meant who typed another one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_CLOSE = 0.65
_SHORTEST = 3


def nearest(word: str, known: Iterable[str], n: int = 1) -> list[str]:
    """Returns the known words that are nearest to a typed one, the nearest first; none that is far.

    Near is what differs in few letters, and what abbreviates the other: `ckpt` is near to `checkpoint`, `opt`
    to `optimizer`, `lr` to `learning_rate`.

    Args:
        word: The word that was typed.
        known: What it may have been meant for.
        n: Their largest number.
    """
    scores = {other: _likeness(_bare(word), _bare(other)) for other in known}
    near = [other for other, score in scores.items() if score >= _CLOSE]
    return sorted(near, key=lambda other: (-scores[other], other))[:n]


def _bare(word: str) -> str:
    return word.lower().replace("-", "_")


def _likeness(word: str, other: str) -> float:
    if word == other:
        return 1.0
    if len(word) > 1 and sorted(word) == sorted(other):  # letters in another order
        return 0.99
    ratio = difflib.SequenceMatcher(None, other, word).ratio()
    first = other.split("_")[0]  # of ckpt_path
    pairs = ((word, other), (other, word))
    abbreviated = any(_shortens(*pair) or _initials(pair[1]) == pair[0] for pair in pairs)
    return max(ratio, _CLOSE) if abbreviated or _shortens(first, word) else ratio


def _initials(word: str) -> str:
    return "".join(part[:1] for part in word.split("_"))


def _shortens(short: str, long: str) -> bool:
    """Whether a word is the beginning of another, or what is left of it without some letters."""
    if not _SHORTEST <= len(short) < len(long) or short[0] != long[0]:
        return False
    letters = iter(long)
    return long.startswith(short) or (short[-1] == long[-1] and all(letter in letters for letter in short))
