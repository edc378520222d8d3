"""Where a run comes from: command, code, packages, hardware."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from skinseg import __version__

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "hydra-core",
    "omegaconf",
    "segmentation-models-pytorch",
    "timm",
    "albumentations",
    "opencv-python-headless",
    "torchmetrics",
    "wandb",
    "numpy",
    "pandas",
    "pillow",
    "scikit-learn",
)


def provenance() -> dict[str, Any]:
    """Returns where a run comes from: command, code, packages, hardware, time (UTC)."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "working_directory": str(Path.cwd()),
        "skinseg": __version__,
        "git": _git_state(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "hardware": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": gpus,
            "cuda": torch.version.cuda if gpus else None,
        },
    }


def _git_state() -> dict[str, Any] | None:
    """Returns commit and whether the tree was changed, None outside of a checkout."""
    package = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        # An installed package may lie within a checkout of something else.
        if Path(git("rev-parse", "--show-toplevel")) != package.parent:
            return None
        return {
            "commit": git("rev-parse", "HEAD"),
            "changed_files": git("status", "--porcelain").splitlines(),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
