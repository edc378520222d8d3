"""Ask the ISIC Challenge's public scorer for its answers; run in an environment of the scorer's own.

The scorer's requirements are not skinseg's, and the two should not hold each other back. To write
golden_isic_challenge.json anew, from the repository root, with Python 3.11:

    python -m venv build/scorer
    build/scorer/bin/python -m pip install "isic-challenge-scoring==5.6.0" "pandas<4"
    build/scorer/bin/python tests/scoring/make_golden.py tests/scoring/golden_isic_challenge.json

With --folders, masks in files are scored instead of the cases of cases.py:

    build/scorer/bin/python tests/scoring/make_golden.py answers.json --folders TRUTH PREDICTION

Either way the scorer reads PNG files, as it does in the challenge. Floats are written by repr, which
reads back as the same float.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import isic_challenge_scoring
from cases import build_mask, describe_cases
from isic_challenge_scoring.confusion import create_binary_confusion_matrix
from isic_challenge_scoring.load_image import iter_image_pairs
from PIL import Image


def score_pairs(truth: Path, prediction: Path) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Score two folders of masks; return the answers by image id, and the scorer's mean over them."""
    answers = {}
    for pair in iter_image_pairs(truth, prediction):
        # The scorer reports means alone; of one image the mean is the image's own score.
        scores = isic_challenge_scoring.SegmentationScore([pair]).macro_average
        counts = create_binary_confusion_matrix(pair.truth_image > 128, pair.prediction_image > 128)
        answers[pair.image_id] = {
            "counts": [int(counts[name]) for name in ("TP", "FP", "FN", "TN")],
            "scores": {name: float(score) for name, score in scores.items()},
        }
    mean = isic_challenge_scoring.SegmentationScore.from_dir(truth, prediction).macro_average
    return answers, {name: float(score) for name, score in mean.items()}


def score_cases() -> dict[str, Any]:
    """Write the masks of all cases to files, score them, and return the content of the golden file."""
    cases = describe_cases()
    with tempfile.TemporaryDirectory() as folder:
        sides = {side: Path(folder) / side for side in ("truth", "prediction")}
        for side, path in sides.items():
            path.mkdir()
            for number, case in enumerate(cases):
                mask = build_mask(case[side], case["height"], case["width"])
                case[f"{side}_sha256"] = hashlib.sha256(mask.tobytes()).hexdigest()[:16]
                Image.fromarray(mask).save(path / f"ISIC_{number:07}.png")
        answers, mean = score_pairs(sides["truth"], sides["prediction"])
    return {
        "scorer": f"isic-challenge-scoring {isic_challenge_scoring.__version__}",
        "macro_average": mean,
        "cases": [case | answers[f"ISIC_{number:07}"] for number, case in enumerate(cases)],
    }


def dump(golden: dict[str, Any]) -> str:
    """Format with one case a line, so that a change of one case is a change of one line."""
    head = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items() if key != "cases"]
    cases = ",\n".join(json.dumps(case) for case in golden["cases"])
    return "{\n" + ",\n".join(head) + ',\n"cases": [\n' + cases + "\n]\n}\n"


def main() -> None:
    """Write the answers to the file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", type=Path, help="the JSON file to write")
    parser.add_argument("--folders", type=Path, nargs=2, metavar=("TRUTH", "PREDICTION"))
    arguments = parser.parse_args()
    if arguments.folders:
        answers, mean = score_pairs(*arguments.folders)
        text = json.dumps({"macro_average": mean, "images": answers})
    else:
        text = dump(score_cases())
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
