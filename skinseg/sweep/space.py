"""What a search may choose from: ranges and choices by key of the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from skinseg.quoting import hydra_value, override

Spec = Mapping[str, Any]
"""Either `choices`, or `low` and `high` with `log` or `step`: arguments of one of Optuna's distributions."""

BOUNDS: Mapping[str, Any] = {"low": int | float, "high": int | float, "step": int | float | None, "log": bool}
"""What is given for a range, with its types."""

# With what lies below each.
_FIXED = {
    "search": "a search does not search itself",
    "run_dir": "each trial has a folder of its own",
    "ckpt_path": "each trial starts anew",
    "test": "a trial is never scored on the test subset",
    "test_data": "a trial is never scored on the test subset",
    "monitor": "trials are compared by one score",
    "mode": "trials are compared by one score",
    "data.root": "trials are compared on the same images",
    "data.reader": "trials are compared on the same images",
    "data.split": "trials are compared on the same images",
    "split@data.split": "trials are compared on the same images",
}


def distribution(spec: Spec) -> BaseDistribution:
    """Returns a range or choices in Optuna's words. Whole numbers make a range of whole numbers.

    Raises:
        TypeError: Arguments are missing or unknown.
        ValueError: They do not go together.
    """
    if "choices" in spec:
        if not isinstance(spec["choices"], list):
            raise ValueError(f"choices={spec['choices']!r}: expected a list.")
        return CategoricalDistribution(
            **{**spec, "choices": [_storable(choice) for choice in spec["choices"]]}
        )
    whole = all(isinstance(value, int) for key, value in spec.items() if key != "log")
    return IntDistribution(**spec) if whole and spec else FloatDistribution(**spec)


def suggest(trial: Trial, key: str, spec: Spec) -> Any:
    """Returns the configuration's value for what the sampler draws, or has drawn before."""
    kind = distribution(spec)
    if isinstance(kind, IntDistribution):
        return trial.suggest_int(key, kind.low, kind.high, step=kind.step, log=kind.log)
    if isinstance(kind, FloatDistribution):
        return trial.suggest_float(key, kind.low, kind.high, step=kind.step, log=kind.log)
    assert isinstance(kind, CategoricalDistribution)
    return value_of(spec, trial.suggest_categorical(key, kind.choices))


def value_of(spec: Spec, drawn: Any) -> Any:
    """Returns the configuration's value for what a storage has kept of it."""
    return next((choice for choice in spec.get("choices", ()) if _storable(choice) == drawn), drawn)


def ends(spec: Spec) -> tuple[Any, ...]:
    """Returns the values that stand for all: every choice, or both ends of the range."""
    return tuple(spec["choices"]) if "choices" in spec else (spec["low"], spec["high"])


def short(key: str, value: Any) -> str:
    """Returns an override for people, with three digits of a number."""
    return f"{key}={value:.3g}" if isinstance(value, float) else override(key, value)


def problems_of(space: Mapping[str, Spec]) -> Iterator[str]:
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
        if spec and all(isinstance(child, Mapping) for child in spec.values()):
            path = _down_to_range(key, spec)
            yield (
                f"search.space.{path}: a key with dots stands between braces, such as "
                f"'++search.space={{{path}:{{low:1e-5,high:1e-2}}}}', and in a file on one line."
            )
            continue
        bare = key.lstrip("+")
        reasons = [why for fixed, why in _FIXED.items() if f"{bare}.".startswith(f"{fixed}.")]
        if bare == "data":  # what lies below, such as data.batch_size, may be searched
            reasons = ["trials are compared on the same images"]
        for reason in reasons:
            yield f"search.space.{key}: {reason}; leave it out."
        try:
            distribution(spec)
        except (TypeError, ValueError) as error:
            reason = re.sub(r"\w+\.__init__\(\) ", "", str(error))
            yield (
                f"search.space.{key}={dict(spec)}: {reason.rstrip('.')}. Expected {{choices: [...]}}, or "
                "{low: ..., high: ...} with log: true or step: ..."
            )


def _down_to_range(key: str, spec: Spec) -> str:
    """Returns the dotted key of the first range within keys that Hydra took apart at their dots."""
    name, child = next(iter(spec.items()))
    path = f"{key}.{name}"
    deeper = isinstance(child, Mapping) and child and all(isinstance(c, Mapping) for c in child.values())
    return _down_to_range(path, child) if deeper else path


def _storable(choice: Any) -> bool | int | float | str | None:
    """A choice as a storage can keep it."""
    return choice if choice is None or isinstance(choice, (bool, int, float, str)) else hydra_value(choice)
