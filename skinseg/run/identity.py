"""Names of what was scored and how, so that only like is compared with like."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from skinseg.config.schema import DATA_PLACES, not_counted
from skinseg.names import shown

# They watch a training; any other callback may change what comes out of it.
_WATCHING = (
    "skinseg.callbacks.checkpoint.",
    "skinseg.callbacks.interrupt.",
    "skinseg.callbacks.panels.",
    "skinseg.callbacks.progress.",
    "skinseg.callbacks.scores.",
    "skinseg.callbacks.throughput.",
    "skinseg.callbacks.wandb_run.",
    "lightning.pytorch.callbacks.LearningRateMonitor",
)


def _trains(node: Mapping[str, Any]) -> bool:
    target = str(node.get("_target_"))
    if target.endswith(".ProgressiveResizing") and node.get("start") == 1:  # which is none
        return False
    return not target.startswith(_WATCHING)


def digest(parts: Iterable[str]) -> str:
    """Returns 12 hexadecimal digits that name a sequence of texts (SHA-256)."""
    return hashlib.sha256(shown("\n".join(parts)).encode()).hexdigest()[:12]


def method_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns of a run's configuration what is the method: not seed, fold, places, or how fast it runs."""
    # What of the callbacks trains is added below.
    method = {key: value for key, value in config.items() if key not in not_counted("method")}
    # Runs from before there was such a choice are of the same method as those that chose nothing.
    if not (method.get("preprocess") or {}).get("transforms", True):
        del method["preprocess"]
    if not method.get("mix", True):
        del method["mix"]
    for key in ("data", "test_data"):
        node = config.get(key) or {}
        method[key] = {name: value for name, value in node.items() if name not in DATA_PLACES}
        if method[key].get("masks", True) is None:
            del method[key]["masks"]
    trains = {name: node for name, node in (config.get("callbacks") or {}).items() if node and _trains(node)}
    if trains:
        method["callbacks"] = trains
    split = method["data"].get("split") or {}
    method["data"]["split"] = {key: value for key, value in split.items() if key != "fold"}
    return method


def method_identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns which method a run was of, so that its seeds and folds can be told from other methods.

    Args:
        config: The run's resolved configuration.

    Returns:
        method (name and fingerprint of what `method_settings` returns), seed, fold (None: no folds).
    """
    method = method_settings(config)
    split = config["data"].get("split") or {}
    fingerprint = digest([json.dumps(method, sort_keys=True, default=str)])[:6]
    fold = split.get("fold") if split.get("folds") else None
    return {"method": f"{config['name']} {fingerprint}", "seed": config["seed"], "fold": fold}
