"""The model card: what a checkpoint is, how good, for whom, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

from skinseg.evaluation.content import weakest
from skinseg.report.wording import undefined_share
from skinseg.scoring.metrics import METRICS


def model_card(evaluation: Mapping[str, Any], network: str, small: int) -> str:
    """Writes the card of a checkpoint.

    Args:
        evaluation: The content of `evaluation.json`.
        network: What the network is, in a few words.
        small: Least number of lesions of a stratum that is named.

    Returns:
        Markdown.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("skinseg.report"), undefined=jinja2.StrictUndefined, autoescape=False
    )
    mean = evaluation["scores"]["dice"]["mean"]
    return environment.get_template("model_card.md.j2").render(
        e=_one_line(evaluation),
        network=network,
        metrics=METRICS,
        undefined_share=undefined_share,
        small=small,
        weak=_one_line(weakest(evaluation["strata"], mean)),
    )


def _one_line(value: Any) -> Any:
    """Keeps names of the user's from breaking a table."""
    if isinstance(value, str):
        return " ".join(value.split()).replace("|", "\\|").replace("<", "&lt;")
    if isinstance(value, Mapping):
        return {key: _one_line(item) for key, item in value.items()}
    return [_one_line(item) for item in value] if isinstance(value, (list, tuple)) else value
