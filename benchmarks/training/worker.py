"""One competitor's process: `python -m benchmarks.training.worker NAME ACTION WORK RESULT`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

MODULES = {
    "plain": "plain",
    "tuned": "tuned",
    "monai": "monai_trainer",
    "nnunet": "nnunet_trainer",
    "skinseg": "skinseg_command",
}
"""Competitors by name."""


def main() -> None:
    """Runs the competitor and writes what it measured."""
    name, action, work_path, result_path = sys.argv[1:]
    import torch

    from benchmarks.training.work import Work

    work = Work.read(Path(work_path))
    torch.set_num_threads(work.threads)
    torch.manual_seed(work.seed)
    module = importlib.import_module(f"benchmarks.training.{MODULES[name]}")
    result = getattr(module, action)(work)
    Path(result_path).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
