"""Pictures of a search: its history, and its scores by each key."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from skinseg.record import replacing
from skinseg.sweep.space import Dimension, short
from skinseg.sweep.study import is_pruned, value_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_INK, _MUTED, _RULE, _SERIES = "#1b1f24", "#59636e", "#d1d9e0", "#0969da"
_STYLE: dict[str, Any] = {
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "legend.frameon": False,
    "font.size": 9,
    "savefig.dpi": 160,
    "text.parse_math": False,
}
_COLUMNS = 3


def draw_history(path: Path, trials: Sequence[FrozenTrial], *, monitor: str, mode: str) -> None:
    """Draws the score of each trial in the order of their start, and the best so far.

    Args:
        path: PNG file.
        trials: At least one of which has run to its end.
        monitor: Name of the score.
        mode: "max" or "min".
    """
    with _picture(path, 6.5, 3.4) as figure:
        axes = figure.add_subplot()
        _dots(axes, trials, [trial.number for trial in trials])
        done = [(trial.number, score) for trial in trials if (score := value_of(trial)) is not None]
        so_far = (np.maximum if mode == "max" else np.minimum).accumulate([score for _, score in done])
        numbers = [*(number for number, _ in done), max(trial.number for trial in trials)]
        axes.step(
            numbers, [*so_far, so_far[-1]], where="post", color=_INK, linewidth=1.2, label="best so far"
        )
        failed = [trial.number for trial in trials if trial.state.name == "FAIL"]
        if failed:
            axes.plot(
                failed, [0.02] * len(failed), "x", color=_INK, markersize=5, label="failed",
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip
        axes.set_xlabel("trial")
        axes.set_ylabel(monitor)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        figure.legend(loc="outside upper center", ncols=4)


def draw_parameters(
    path: Path,
    trials: Sequence[FrozenTrial],
    importances: Mapping[str, float] | None,
    dimensions: Sequence[Dimension],
    *,
    monitor: str,
) -> None:
    """Draws the scores over the values of each key, the most important one first.

    Args:
        path: PNG file.
        trials: Of the search.
        importances: A share for each key, in the titles. None: too few trials to tell.
        dimensions: What was searched.
        monitor: Name of the score.
    """
    known = importances or {}
    ordered = sorted(dimensions, key=lambda dimension: -known.get(dimension.key, 0.0))
    columns = min(_COLUMNS, len(ordered))
    rows = math.ceil(len(ordered) / columns)
    with _picture(path, 0.6 + 3.0 * columns, 0.5 + 2.7 * rows) as figure:
        for place, dimension in enumerate(ordered):
            axes = figure.add_subplot(rows, columns, place + 1)
            drawn = [trial for trial in trials if dimension.key in trial.params]
            values = [dimension.value(trial.params[dimension.key]) for trial in drawn]
            if dimension.choices:
                places = [dimension.choices.index(value) for value in values]
                # Trials of one choice would lie on each other.
                shifts = np.random.default_rng(0).uniform(-0.15, 0.15, len(places))
                _dots(axes, drawn, [place + shift for place, shift in zip(places, shifts, strict=True)])
                names = [short("", choice).removeprefix("=") for choice in dimension.choices]
                tilted = sum(map(len, names)) > 28
                axes.set_xticks(
                    range(len(names)), names, rotation=30 if tilted else 0, ha="right" if tilted else "center"
                )
                axes.set_xlim(-0.5, len(names) - 0.5)
            else:
                _dots(axes, drawn, values)
                if dimension.log:
                    axes.set_xscale("log")
                    margin = (dimension.high / dimension.low) ** 0.04
                    axes.set_xlim(dimension.low / margin, dimension.high * margin)
                    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_major_locator(MaxNLocator(5))
            if place % columns == 0:
                axes.set_ylabel(monitor)
            share = f"  (importance {known[dimension.key]:.2f})" if dimension.key in known else ""
            axes.set_title(f"{dimension.key}{share}", loc="left")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)


def _dots(axes: Axes, trials: Sequence[FrozenTrial], places: Sequence[float]) -> None:
    """Draws scores: full of trials that ran to their ends, hollow the last one of those that were pruned."""
    done = [(place, value_of(t)) for place, t in zip(places, trials, strict=True) if value_of(t) is not None]
    pruned = [
        (place, t.value)
        for place, t in zip(places, trials, strict=True)
        if is_pruned(t) and t.values and math.isfinite(t.values[0])
    ]
    axes.plot(*np.array(done, float).reshape(-1, 2).T, "o", color=_SERIES, markersize=4.5, label="done")
    if pruned:
        axes.plot(
            *np.array(pruned, float).T, "o", color=_MUTED, markerfacecolor="none", markersize=4.5,
            label="pruned, its last score",
        )  # fmt: skip


@contextmanager
def _picture(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Gives a figure of a size in inches, which is written at the end."""
    with matplotlib.style.context(["default", _STYLE], after_reset=True):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")
