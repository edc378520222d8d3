"""What a search may choose from: ranges and choices by key of the configuration."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_RANGE = ("low", "high", "log", "step")
_KNOWN = (*_RANGE, "choices")
_FIXED = {
    "search": "a search does not search itself",
    "run_dir": "each trial has a folder of its own",
    "ckpt_path": "each trial starts anew",
    "test": "a trial is never scored on the test side",
    "test_data": "a trial is never scored on the test side",
    "monitor": "trials are compared by one score",
    "mode": "trials are compared by one score",
    "data.root": "trials are compared on the same images",
    "data.reader": "trials are compared on the same images",
    "data.split": "trials are compared on the same images",
    "split@data.split": "trials are compared on the same images",
}
"""Keys that make trials incomparable, with those below them."""
_FIXED_ALONE = {"data": "trials are compared on the same images"}
"""As `_FIXED`, but not those below: `data.batch_size` may be searched."""

_OTHERWISE_READ = ("null", "true", "false", "nan", "inf")

Scalar = None | bool | int | float | str


@dataclass(frozen=True)
class Dimension:
    """A key of the configuration and what it may be.

    Attributes:
        key: As on the command line; the name of a group stands for its options.
        choices: The values; none where it is a range.
        low: Lower end of the range, included. Two whole ends make a range of whole numbers.
        high: Upper end, included.
        log: Whether orders of magnitude are equally likely.
        step: Distance of the values from `low` on. None: all between are possible.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that stand for all: every choice, or both ends of the range."""
        return self.choices or (self.low, self.high)

    def distribution(self) -> BaseDistribution:
        """Returns the dimension in Optuna's words."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution([_storable(choice) for choice in self.choices])
        if isinstance(self.low, int) and isinstance(self.high, int):
            step = 1 if self.step is None else int(self.step)
            return IntDistribution(self.low, self.high, log=self.log, step=step)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def value(self, drawn: Scalar) -> Any:
        """Returns the configuration's value for what Optuna drew."""
        if not self.choices:
            return drawn
        return next(choice for choice in self.choices if _storable(choice) == drawn)


def dimensions(space: Mapping[str, Mapping[str, Any]]) -> list[Dimension]:
    """Returns the dimensions of a space in which `problems_of` found none."""
    return [
        Dimension(key, **{**spec, **({"choices": tuple(spec["choices"])} if "choices" in spec else {})})
        for key, spec in space.items()
    ]


def override(key: str, value: Any) -> str:
    """Returns the override of the command line that sets a key."""
    return f"{key}={_written(value)}"


def short(key: str, value: Any) -> str:
    """Returns an override for people, with three digits of a number."""
    return f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={_written(value)}"


def problems_of(space: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yields a sentence for each thing that is wrong with a space in itself.

    Args:
        space: By key, as in `search.space`.
    """
    if not space:
        yield (
            "search.space: empty; name at least one key, e.g. "
            "'++search.space={optimizer.lr:{low:1e-5,high:1e-2,log:true}}'."
        )
    for key, spec in space.items():
        yield from _dimension_problems(key, spec)


def _dimension_problems(key: str, spec: Mapping[str, Any]) -> Iterator[str]:
    name = f"search.space.{key}"
    bare = key.lstrip("+")
    reason = _FIXED_ALONE.get(bare)
    for fixed, why in _FIXED.items():
        if bare == fixed or bare.startswith(f"{fixed}."):
            reason = why
    if reason is not None:
        yield f"{name}: {reason}; leave it out."
    for word in sorted(spec.keys() - set(_KNOWN)):
        near = difflib.get_close_matches(word, _KNOWN, n=1)
        yield f"{name}.{word}: unknown; " + (
            f"did you mean {near[0]}?" if near else f"known: {', '.join(_KNOWN)}."
        )
    if "choices" in spec:
        if given := sorted(spec.keys() & set(_RANGE)):
            yield f"{name}: choices and {', '.join(given)}; give either choices or a range."
        if not isinstance(spec["choices"], list) or not spec["choices"]:
            yield f"{name}.choices={spec['choices']!r}: expected a list of at least one value."
        return
    if absent := [word for word in ("low", "high") if word not in spec]:
        yield f"{name}: no {' and no '.join(absent)}; give choices, or low and high."
        return
    yield from _range_problems(name, spec)


def _range_problems(name: str, spec: Mapping[str, Any]) -> Iterator[str]:
    numbers = {word: spec[word] for word in ("low", "high", "step") if spec.get(word) is not None}
    if wrong := [word for word, value in numbers.items() if not _is_number(value)]:
        for word in wrong:
            yield f"{name}.{word}={numbers[word]!r}: expected a number."
        return
    low, high, step = spec["low"], spec["high"], spec.get("step")
    log = spec.get("log", False)
    if low is None or high is None:
        yield f"{name}: low and high must be numbers."
        return
    if low > high:
        yield f"{name}: low={low} is above high={high}."
    if not isinstance(log, bool):
        yield f"{name}.log={log!r}: expected true or false."
    elif log and low <= 0:
        yield f"{name}: log=true with low={low}; a logarithm needs low above 0."
    elif log and step is not None:
        yield f"{name}: log=true and step={step}; give one of them."
    if step is not None and step <= 0:
        yield f"{name}.step={step}: expected more than 0."
    whole = isinstance(low, int) and isinstance(high, int)
    if step is not None and whole and not isinstance(step, int):
        yield f"{name}.step={step}: low and high are whole numbers; write {float(low)} and {float(high)}."


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _storable(choice: Any) -> Scalar:
    """A choice as a storage can keep it."""
    return choice if choice is None or isinstance(choice, (bool, int, float, str)) else _written(choice)


def _written(value: Any) -> str:
    """Writes a value as the command line takes it."""
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_written(child)}" for key, child in value.items()) + "}"
    if isinstance(value, str):
        if re.fullmatch(r"[A-Za-z_][\w.-]*", value) and value.lower() not in _OTHERWISE_READ:
            return value
        return "'" + value.replace("'", "\\'") + "'"
    return json.dumps(value)
