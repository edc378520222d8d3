"""Names of what was scored and how, so that only like is compared with like."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

# What differs between two trainings of one method; all else is the method.
_NOT_THE_METHOD = frozenset(
    {
        "seed",
        "run_dir",
        "name",
        "group",
        "job_type",
        "tags",
        "notes",
        "logger",
        "callbacks",
        "ckpt_path",
        "threads",
        "matmul_precision",
        "compile",
        "gradient_checkpointing",
        "find",  # what it found is the batch size or the learning rate
        "test",
    }
)

# Callbacks are not, but for those that change what is trained or kept.
_METHOD_CALLBACKS = ("weight_average", "progressive_resizing")

_NOT_OF_THE_DATA = frozenset(
    {"root", "num_workers", "verify", "cache", "cache_dir", "cache_limit_gb", "cache_check"}
)


def digest(parts: Iterable[str]) -> str:
    """Returns 12 hexadecimal digits that name a sequence of texts (SHA-256)."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def method_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns of a run's configuration what is the method: not seed, fold, places, or how fast it runs."""
    method = {key: value for key, value in config.items() if key not in _NOT_THE_METHOD}
    for key in ("data", "test_data"):
        node = config.get(key) or {}
        method[key] = {name: value for name, value in node.items() if name not in _NOT_OF_THE_DATA}
    split = method["data"].get("split") or {}
    method["data"]["split"] = {key: value for key, value in split.items() if key != "fold"}
    nodes = config.get("callbacks") or {}
    # Progressive resizing that starts at the full size is none.
    active = [name for name in _METHOD_CALLBACKS if nodes.get(name) and nodes[name].get("start") != 1]
    if active:
        method["callbacks"] = {name: nodes[name] for name in active}
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
