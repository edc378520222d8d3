"""Near duplicates: found when they are the same picture, and not when they are merely alike."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from skinseg.data import duplicates
from skinseg.data.duplicates import Fingerprint, fingerprint, near_duplicates
from skinseg.data.files import find_images, walk
from skinseg.data.photographs import read_image
from skinseg.data.readers.synthetic import write_synthetic_ham10000


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.uint8]]:
    folder = write_synthetic_ham10000(tmp_path_factory.mktemp("drawn") / "set", lesions=20)
    return {image_id: read_image(path) for image_id, path in find_images(list(walk(folder)))[0].items()}


def reduced(image: NDArray[np.uint8], width: int, quality: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(image).resize((width, round(width * image.shape[0] / image.shape[1])))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def test_reduced_and_recompressed_copies_are_found_and_nothing_else(
    pictures: dict[str, NDArray[np.uint8]],
) -> None:
    originals = {name: fingerprint(image) for name, image in pictures.items()}
    copies = {f"{name}_copy": fingerprint(reduced(image, 130, 60)) for name, image in pictures.items()}
    found = near_duplicates(originals, copies)
    assert set(zip(found["a"], found["b"], strict=True)) == {(name, f"{name}_copy") for name in pictures}
    assert found["distance"].is_monotonic_increasing
    assert near_duplicates(originals).empty


def test_within_one_set_each_pair_once_over_the_blocks(
    pictures: dict[str, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    prints = {name: fingerprint(image) for name, image in pictures.items()}
    prints |= {f"{name}_again": bits for name, bits in prints.items()}
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    found = near_duplicates(prints)
    assert set(zip(found["a"], found["b"], strict=True)) == {(name, f"{name}_again") for name in pictures}
    assert (found["distance"] == 0).all()


def made(differing: int, *, turned: float = 0.0) -> Fingerprint:
    """A fingerprint with so many bits and a thumbnail turned away by so many radians from `made(0)`'s."""
    bits = np.arange(256) < differing
    thumbnail = np.zeros(1024, np.float32)
    thumbnail[:2] = np.cos(turned), np.sin(turned)
    return Fingerprint(bits, thumbnail)


def test_an_id_is_no_duplicate_of_itself_and_nothing_of_nothing() -> None:
    prints = {"a": made(0)}
    assert near_duplicates(prints, prints).empty
    assert near_duplicates({}).empty
    assert near_duplicates(prints, {}).empty


def test_both_bits_and_thumbnails_must_agree() -> None:
    others = {"near": made(44), "far": made(45), "other": made(0, turned=0.4), "like": made(0, turned=0.3)}
    found = near_duplicates({"a": made(0)}, others)
    assert found[["b", "distance"]].to_numpy().tolist() == [["like", 0], ["near", 44]]
    assert found["correlation"].tolist() == pytest.approx([np.cos(0.3), 1], abs=1e-3)


def test_a_picture_of_one_colour_is_no_duplicate() -> None:
    blank = fingerprint(np.full((60, 80, 3), 90, np.uint8))
    assert near_duplicates({"a": blank, "b": blank}).empty


@pytest.mark.realdata
def test_real_copies_at_two_sizes(real_data: Path) -> None:
    large, _ = find_images(list(walk(real_data / "isic2018_task1")))
    small, _ = find_images(list(walk(real_data / "isic9")))
    both = sorted(large.keys() & small.keys())
    assert len(both) == 453
    found = near_duplicates(
        {f"{i} large": fingerprint(read_image(large[i])) for i in both},
        {f"{i} small": fingerprint(read_image(small[i])) for i in both},
    )
    pairs = set(zip(found["a"], found["b"], strict=True))
    assert pairs >= {(f"{i} large", f"{i} small") for i in both}
    assert len(pairs) <= 453 + 20, "some pictures are in the sets under two ids"
