"""Damage that decodes, in every part of a file, and sound files of every make."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skinseg.data.damage import damage
from skinseg.data.files import read_image, read_mask

END = b"\xff\xd9"


def photograph() -> Image.Image:
    ys, xs = np.mgrid[:120, :160]
    skin = np.random.default_rng(0).normal((210, 170, 150), 12, (120, 160, 3))
    skin[(xs - 80) ** 2 + (ys - 60) ** 2 < 900] -= 90
    return Image.fromarray(skin.clip(0, 255).astype(np.uint8))


def written(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


SOUND = {
    "baseline": written(photograph(), quality=95),
    "coarse": written(photograph(), quality=20, subsampling=2),
    "optimised": written(photograph(), optimize=True),
    "progressive": written(photograph(), progressive=True),
    "with restarts": written(photograph(), restart_marker_rows=1),
    "grey": written(photograph().convert("L")),
    "CMYK": written(photograph().convert("CMYK")),
    "of one colour": written(Image.new("RGB", (160, 120), (10, 10, 10)), optimize=True),
    "with something behind": written(photograph()) + b"made by a camera",
}


def middle(content: bytes) -> int:
    return len(content) * 6 // 10


DAMAGES = {
    "ends early": lambda content: content[: middle(content)] + END,
    "a few bytes short": lambda content: content[:-40] + END,
    "never loaded to its end": lambda content: content[: middle(content)].ljust(len(content), b"\0"),
    "has a hole": lambda content: content[: middle(content)] + bytes(900) + content[middle(content) + 900 :],
    "lost a part": lambda content: content[: middle(content)] + content[middle(content) + 900 :],
    "another's end": lambda content: content[: middle(content)] + SOUND["baseline"][-2000:],
}


@pytest.mark.parametrize("make", SOUND)
def test_sound(make: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(SOUND[make])
    assert damage(tmp_path / "a.jpg") is None


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("make", ["baseline", "optimised", "with restarts", "grey", "progressive"])
def test_a_damaged_jpeg_whether_pillow_refuses_it_or_not(make: str, how: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(DAMAGES[how](SOUND[make]))
    said = damage(path)
    assert said is not None
    assert said.startswith(("Corrupt JPEG data", "Premature end"))


def test_the_lower_part_is_grey_in_the_case_that_looks_sound(tmp_path: Path) -> None:
    """What the audit is for: nothing else refuses this file."""
    path = tmp_path / "a.jpg"
    path.write_bytes(DAMAGES["ends early"](SOUND["baseline"]))
    assert (read_image(path)[-16:] == 128).all()


def test_masks(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    mask = Image.fromarray((np.asarray(photograph())[..., 0] > 150).astype(np.uint8) * 255)
    content = written(mask, "PNG")
    path.write_bytes(content)
    assert damage(path) is None
    checksum = content.index(b"IDAT") - 4
    size = int.from_bytes(content[checksum : checksum + 4], "big")
    at = checksum + 8 + size
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    assert read_mask(path).any(), "Pillow does not look at the checksum"
    assert damage(path) is not None


def test_other_formats_say_nothing(tmp_path: Path) -> None:
    photograph().save(tmp_path / "a.bmp")
    (tmp_path / "text").write_text("no picture")
    assert damage(tmp_path / "a.bmp") is None
    assert damage(tmp_path / "text") is None
