"""The model card: what a checkpoint is, how good, for whom, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

from skinseg.evaluation.content import weakest
from skinseg.scoring.metrics import METRICS

_TEMPLATE = """\
# Model card: {{ e.name }}

Outlines the lesion in a dermoscopic photograph: {{ network }}.
Written {{ e.created }} by skinseg {{ e.skinseg }}.
{% for stamp in e.stamps %}
> **{{ stamp }}**
{% endfor %}
## Intended use

Research on the segmentation of single skin lesions in dermoscopic photographs like those it was trained on.
**Not for diagnosis**, nor any decision about a person: an outline says nothing of whether a lesion is malignant,
and nobody has tested this network as a medical device.

## Data

{% for label, value in e.protocol %}- {{ label }}: {{ value }}
{% endfor %}{% for licence in e.licences %}- Licence of the images: {{ licence }}
{% endfor %}
## Scores

{{ e.interval|capitalize }}.

| score | mean | interval | n | undefined |
|---|---|---|---|---|
{% for name, s in e.scores.items() %}| {{ metrics[name].label }} | {{ metrics[name].text(s.mean) }} | {% if s.low is none %}not available{% else %}{{ metrics[name].text(s.low) }} to {{ metrics[name].text(s.high) }}{% endif %} | {{ s.n }} | {{ s.undefined }} |
{% endfor %}
{% for name in e.scores %}- **{{ metrics[name].label }}**: {{ metrics[name].definition }}
{% endfor %}
## Where it is weaker

{% if weak %}Strata of at least {{ small }} lesions whose whole interval lies below the overall Dice of {{ metrics.dice.text(e.scores.dice.mean) }}:

| stratum | value | images | lesions | Dice | interval |
|---|---|---|---|---|---|
{% for row in weak %}| {{ row.label }} | {{ row.value }} | {{ row.images }} | {{ row.lesions }} | {{ metrics.dice.text(row.scores.dice.mean) }} | {{ metrics.dice.text(row.scores.dice.low) }} to {{ metrics.dice.text(row.scores.dice.high) }} |
{% endfor %}
Many strata were looked at and their intervals are not corrected for that; take these for questions, not for findings.
{% else %}No stratum of at least {{ small }} lesions lies below the overall Dice with its whole interval. Strata that the data
do not describe (see the report) may still do worse.
{% endif %}{% for stratum in e.strata if stratum.note %}
{{ stratum.label }}: {{ stratum.note }}
{% endfor %}
## Cost

{% for label, value in e.cost %}- {{ label }}: {{ value }}
{% endfor %}"""


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
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=False, autoescape=False
    )
    mean = evaluation["scores"]["dice"]["mean"]
    return environment.from_string(_TEMPLATE).render(
        e=_one_line(evaluation),
        network=network,
        metrics=METRICS,
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
