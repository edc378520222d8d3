"""The space of a search: what is refused, and values as the command line takes them."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from skinseg.sweep.space import dimensions, override, problems_of, short


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"low": 0.1, "high": 0.01}, "low=0.1 is above high=0.01"),
        ({"low": 1}, "no high; give choices, or low and high"),
        ({}, "no low and no high"),
        ({"low": 0.0, "high": 1.0, "log": True}, "needs low above 0"),
        ({"low": 0.1, "high": 1.0, "log": True, "step": 0.1}, "log=true and step=0.1"),
        ({"low": "a", "high": 1}, "low='a': expected a number"),
        ({"low": None, "high": 1}, "low and high must be numbers"),
        ({"low": 1, "high": float("inf")}, "expected a number"),
        ({"low": 1, "high": 2, "log": "yes"}, "log='yes': expected true or false"),
        ({"low": 1, "high": 2, "step": 0}, "step=0: expected more than 0"),
        ({"low": 1, "high": 2, "step": 0.5}, "write 1.0 and 2.0"),
        ({"low": 1, "hihg": 2}, "hihg: unknown; did you mean high?"),
        ({"choices": []}, r"choices=\[\]: expected a list of at least one value"),
        ({"choices": "abc"}, "choices='abc': expected a list"),
        ({"choices": [1], "low": 1}, "choices and low; give either"),
    ],
)
def test_wrong_dimension(spec: dict[str, Any], says: str) -> None:
    (first, *_) = problems_of({"optimizer.lr": spec})
    assert first.startswith("search.space.optimizer.lr")
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(first)


@pytest.mark.parametrize(
    "key", ["test", "data.split.fold", "split@data.split", "monitor", "data", "search.trials", "test_data"]
)
def test_keys_that_make_trials_incomparable(key: str) -> None:
    assert [problem.endswith("leave it out.") for problem in problems_of({key: {"choices": [1]}})] == [True]


def test_keys_beside_them_may_be_searched() -> None:
    space = {"data.batch_size": {"low": 1, "high": 2}, "data.image_size": {"choices": [[32, 32]]}}
    assert list(problems_of(space)) == []


def test_an_empty_space() -> None:
    assert [problem.startswith("search.space: empty") for problem in problems_of({})] == [True]


def test_distributions() -> None:
    found = dimensions(
        {
            "a": {"low": 1, "high": 5},
            "b": {"low": 1e-5, "high": 1e-2, "log": True},
            "c": {"low": 0.0, "high": 1.0, "step": 0.25},
            "d": {"choices": ["x", None, [1, 2]]},
        }
    )
    assert [each.distribution() for each in found] == [
        IntDistribution(1, 5),
        FloatDistribution(1e-5, 1e-2, log=True),
        FloatDistribution(0.0, 1.0, step=0.25),
        CategoricalDistribution(["x", None, "[1,2]"]),
    ]
    assert [each.ends for each in found] == [(1, 5), (1e-5, 1e-2), (0.0, 1.0), ("x", None, [1, 2])]
    assert found[3].value("[1,2]") == [1, 2]
    assert found[3].value(None) is None


@pytest.mark.parametrize(
    "value",
    [1, 1.5, 1.2345678901234567e-05, True, None, "bce_dice", "efficientnet-b0", "true", "null", "a b", "it's",
     "", "3", "a,b=c", "~/x", [96, 128], ["a", "b c"], {"a": 1}],
)  # fmt: skip
def test_hydra_reads_an_override_as_it_was_meant(value: Any) -> None:
    read = OverridesParser.create().parse_override(override("key", value)).value()
    assert read == value
    assert type(read) is type(value)


def test_an_override_for_people() -> None:
    assert short("optimizer.lr", 0.000123456) == "optimizer.lr=0.000123"
    assert short("loss", "dice") == "loss=dice"
