"""What README.md says is what was measured."""

from __future__ import annotations

import json

from conftest import REPOSITORY


def test_the_pictures_caption_has_the_numbers_of_their_run() -> None:
    found = json.loads((REPOSITORY / "docs/readme.json").read_text(encoding="utf-8"))
    mean, low, high = (f"{found[key]:.3f}".lstrip("0") for key in ("mean", "low", "high"))
    caption = f"Dice {mean} ({low} to {high}) on {found['images']} drawn images of {found['lesions']} lesions"
    text = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    assert caption in text
