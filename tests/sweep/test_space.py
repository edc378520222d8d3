"""The space of a search: what is refused, and values as the command line takes them."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from skinseg.sweep.space import distribution, ends, override, problems_of, short, value_of


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"low": 0.1, "high": 0.01}, "`low <= high` must hold"),
        ({"low": 1}, "missing 1 required positional argument: 'high'"),
        ({}, "missing 2 required positional arguments: 'low' and 'high'"),
        ({"low": 0.0, "high": 1.0, "log": True}, "`low > 0` must hold"),
        ({"low": 0.1, "high": 1.0, "log": True, "step": 0.1}, "`step` is not supported when `log` is true"),
        ({"low": "a", "high": 1}, "not supported between instances of 'str' and 'int'"),
        ({"low": None, "high": 1}, "not supported between instances of 'NoneType' and 'int'"),
        ({"low": 1, "high": 2, "step": 0}, "`step > 0` must hold"),
        ({"low": 1, "hihg": 2}, "unexpected keyword argument 'hihg'"),
        ({"choices": []}, "must contain one or more elements"),
        ({"choices": "abc"}, "choices='abc': expected a list"),
        ({"choices": [1], "low": 1}, "unexpected keyword argument 'low'"),
    ],
)
def test_wrong_dimension(spec: dict[str, Any], says: str) -> None:
    (problem,) = problems_of({"optimizer.lr": spec})
    assert problem.startswith(f"search.space.optimizer.lr={spec}: ")
    assert "__init__" not in problem
    assert says in problem


@pytest.mark.parametrize(
    "key", ["test", "data.split.fold", "split@data.split", "monitor", "data", "search.trials", "test_data"]
)
def test_keys_that_make_trials_incomparable(key: str) -> None:
    assert [problem.endswith("leave it out.") for problem in problems_of({key: {"choices": [1]}})] == [True]


def test_keys_beside_them_may_be_searched() -> None:
    space = {"data.batch_size": {"low": 1, "high": 2}, "data.image_size": {"choices": [[32, 32]]}}
    assert list(problems_of(space)) == []


def test_a_text_that_reads_like_an_interpolation_is_none() -> None:
    text = override("notes", "a${b}").partition("=")[2].strip("'")
    assert OmegaConf.create({"notes": text}).notes == "a${b}"


def test_an_empty_space() -> None:
    assert [problem.startswith("search.space: empty") for problem in problems_of({})] == [True]


def test_distributions() -> None:
    space: list[dict[str, Any]] = [
        {"low": 1, "high": 5},
        {"low": 1e-5, "high": 1e-2, "log": True},
        {"low": 0.0, "high": 1.0, "step": 0.25},
        {"low": 1, "high": 2, "step": 0.5},
        {"choices": ["x", None, [1, 2]]},
    ]
    assert [distribution(spec) for spec in space] == [
        IntDistribution(1, 5),
        FloatDistribution(1e-5, 1e-2, log=True),
        FloatDistribution(0.0, 1.0, step=0.25),
        FloatDistribution(1.0, 2.0, step=0.5),
        CategoricalDistribution(["x", None, "[1,2]"]),
    ]
    assert [ends(spec) for spec in space] == [
        (1, 5), (1e-5, 1e-2), (0.0, 1.0), (1, 2), ("x", None, [1, 2]),
    ]  # fmt: skip
    assert value_of(space[-1], "[1,2]") == [1, 2]
    assert value_of(space[-1], None) is None
    assert value_of(space[0], 3) == 3


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
