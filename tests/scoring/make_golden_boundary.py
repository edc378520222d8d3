"""Ask the libraries that score outlines for their answers; run in an environment of their own.

To write golden_boundary.json anew, from the repository root, with Python 3.11:

    python -m venv build/peers
    build/peers/bin/python -m pip install monai==1.6.1 surface-distance==0.1 MedPy==0.5.2
    build/peers/bin/python tests/scoring/make_golden_boundary.py tests/scoring/golden_boundary.json

Boundary IoU has no package; tests/scoring/test_boundary.py follows its paper by a search instead.
Floats are written by repr, which reads back as the same float; MONAI's are float32.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from medpy.metric import binary
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from outlines import Mask, describe_outlines
from surface_distance import metrics

TOLERANCE = 2.0


def ask_monai(truth: Mask, prediction: Mask) -> dict[str, float]:
    """MONAI's answers; `nsd_by_length` is the one that says to follow surface-distance."""
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
    return {
        "hd95": compute_hausdorff_distance(*pair, include_background=True, percentile=95).item(),
        "assd": compute_average_surface_distance(*pair, include_background=True, symmetric=True).item(),
        "nsd": compute_surface_dice(*pair, [TOLERANCE], include_background=True).item(),
        "nsd_by_length": compute_surface_dice(
            *pair, [TOLERANCE], include_background=True, use_subvoxels=True
        ).item(),
    }


def ask_medpy(truth: Mask, prediction: Mask) -> dict[str, float]:
    """MedPy's answers; it has no surface Dice."""
    return {
        "hd95": float(binary.hd95(prediction, truth)),
        "assd": float(binary.assd(prediction, truth)),
    }


def ask_surface_distance(truth: Mask, prediction: Mask) -> dict[str, float]:
    """DeepMind's answers; its average is given per direction, the mean of the two is ours to take."""
    distances = metrics.compute_surface_distances(truth, prediction, (1, 1))
    return {
        "hd95": float(metrics.compute_robust_hausdorff(distances, 95)),
        "assd": float(np.mean(metrics.compute_average_surface_distance(distances))),
        "nsd": float(metrics.compute_surface_dice_at_tolerance(distances, TOLERANCE)),
    }


def main() -> None:
    """Write the answers to the file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", type=Path, help="the JSON file to write")
    arguments = parser.parse_args()
    cases = {}
    for name, pair in describe_outlines().items():
        cases[name] = {
            # So that a drawing which changed is not mistaken for a score which did.
            "sha256": [hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()[:16] for mask in pair],
            "monai": ask_monai(*pair),
            "medpy": ask_medpy(*pair),
            "surface_distance": ask_surface_distance(*pair),
        }
    head = {
        "peers": {name: version(name) for name in ("monai", "MedPy", "surface-distance")},
        "tolerance_px": TOLERANCE,
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    rows = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(case, allow_nan=False)}" for name, case in cases.items()
    )
    arguments.output.write_text("{\n" + ",\n".join(lines) + ',\n"cases": {\n' + rows + "\n}\n}\n", "utf-8")
    sys.stdout.write(f"{len(cases)} pairs.\n")


if __name__ == "__main__":
    main()
