from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from skinseg.data.catalog import Catalog
from skinseg.data.diagnoses import DIAGNOSES
from skinseg.data.problems import Problems
from skinseg.data.readers import invented_pictures, synthetic
from skinseg.data.readers.ham10000 import read_ham10000
from skinseg.data.readers.invented import describe_lesion
from skinseg.data.readers.invented_pictures import draw_lesion_images
from skinseg.data.readers.metadata import HAM10000_NAMES
from skinseg.data.readers.synthetic import (
    IMAGE_FOLDERS,
    MASK_FOLDER,
    read_synthetic,
    write_synthetic_ham10000,
)
from skinseg.errors import SkinsegError

LESIONS = 40
WIDTH, HEIGHT = 64, 48


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "ham10000"
    return write_synthetic_ham10000(folder, lesions=LESIONS, width=WIDTH, height=HEIGHT)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """The first photographs of 50 lesions at a size that shows their structures."""
    return [draw_lesion_images(describe_lesion(0, n), width=100, height=75)[0] for n in range(50)]


def digests(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.suffix in (".jpg", ".png")]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def metadata(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / HAM10000_NAMES[0])


def small(root: Path, **arguments: int) -> Path:
    return write_synthetic_ham10000(root, **{"lesions": 2, "width": 32, "height": 32} | arguments)


def test_is_read_as_ham10000(root: Path) -> None:
    catalog = read_ham10000(root, Problems())
    assert len(catalog) == len(metadata(root))
    assert catalog.table["group"].nunique() == LESIONS
    assert set(zip(catalog.table["width"], catalog.table["height"], strict=True)) == {(WIDTH, HEIGHT)}


def test_layout(root: Path) -> None:
    parts = [sorted(path.name for path in (root / name).iterdir()) for name in IMAGE_FOLDERS]
    assert abs(len(parts[0]) - len(parts[1])) <= 1
    ids = {Path(name).stem for part in parts for name in part}
    assert ids == set(metadata(root)["image_id"])
    assert {path.name for path in (root / MASK_FOLDER).iterdir()} == {f"{i}_segmentation.png" for i in ids}
    assert all(image_id.startswith("ISIC_9") and len(image_id) == 12 for image_id in ids)


def test_metadata(root: Path) -> None:
    rows = metadata(root)
    assert list(rows.columns) == ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    assert rows["image_id"].is_unique
    assert rows["lesion_id"].str.fullmatch(r"HAM_9\d{6}").all()
    assert set(rows["dx_type"]) <= {"histo", "follow_up", "consensus", "confocal"}
    assert (rows["age"].dropna() % 5 == 0).all()
    assert rows["age"].dropna().between(5, 85).all()
    facts = rows.drop(columns="image_id").drop_duplicates()
    assert facts["lesion_id"].is_unique, "images of a lesion share their metadata"


def test_population() -> None:
    lesions = [describe_lesion(3, number) for number in range(1000)]
    shares = pd.Series([lesion.diagnosis for lesion in lesions]).value_counts(normalize=True)
    assert set(shares.index) == set(DIAGNOSES)
    assert shares["nv"] == pytest.approx(0.67, abs=0.01)
    assert shares["df"] == pytest.approx(0.011, abs=0.005)
    images = np.array([lesion.images for lesion in lesions])
    assert (images > 1).mean() == pytest.approx(0.26, abs=0.04)
    assert set(images) == {1, 2, 3, 4}
    assert 5 <= sum(lesion.age is None for lesion in lesions) <= 50
    assert {lesion.sex for lesion in lesions} == {"male", "female", "unknown"}


def test_masks(root: Path) -> None:
    covered = []
    for path in (root / MASK_FOLDER).iterdir():
        with Image.open(path) as image:
            assert image.mode == "L"
            assert image.size == (WIDTH, HEIGHT)
            mask = np.array(image)
        assert set(np.unique(mask)) == {0, 255}
        assert cv2.connectedComponents(mask)[0] == 2, "one lesion"
        hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[1]
        assert (hierarchy[..., 3] == -1).all(), "without holes"
        covered.append((mask > 0).mean())
    assert min(covered) > 0.01
    assert max(covered) < 0.95
    assert np.quantile(covered, 0.9) > 3 * np.quantile(covered, 0.1), "small and large lesions"


def test_mask_is_one_region_without_holes() -> None:
    inside = np.zeros((30, 40), bool)
    inside[5:25, 5:25] = True
    filled = inside.copy()
    inside[10:12, 10:12] = False
    inside[2:4, 35:38] = True
    assert np.array_equal(invented_pictures._largest_part(inside), np.where(filled, 255, 0))


def test_same_seed_same_bytes(root: Path, tmp_path: Path) -> None:
    fewer = write_synthetic_ham10000(tmp_path / "fewer", lesions=8, width=WIDTH, height=HEIGHT)
    kept = digests(fewer)
    assert len(kept) >= 16
    assert kept.items() <= digests(root).items(), "the first lesions do not depend on how many follow"
    pd.testing.assert_frame_equal(metadata(fewer), metadata(root).head(len(kept) // 2))


def test_other_seed_other_pictures(root: Path, tmp_path: Path) -> None:
    other = write_synthetic_ham10000(tmp_path / "other", lesions=8, width=WIDTH, height=HEIGHT, seed=1)
    assert not set(digests(other).values()) & set(digests(root).values())


def test_images_of_a_lesion_show_the_same_lesion() -> None:
    """Area and colour agree within a lesion much better than between lesions."""
    lesions = [lesion for lesion in (describe_lesion(0, n) for n in range(80)) if lesion.images > 1][:16]
    traits = []
    for lesion in lesions:
        views = draw_lesion_images(lesion, width=96, height=72)
        assert len(views) == lesion.images
        assert not np.array_equal(views[0][0], views[1][0])
        assert not np.array_equal(views[0][1], views[1][1]), "seen from elsewhere"
        for image, mask in views[:2]:
            inside, outside = image[mask > 0].mean(axis=0), image[mask == 0].mean(axis=0)
            traits.append([np.log((mask > 0).mean()), *np.log(inside / outside)])
    values = np.array(traits).reshape(len(lesions), 2, -1)
    for trait in range(values.shape[2]):
        first, second = values[:, 0, trait], values[:, 1, trait]
        assert np.corrcoef(first, second)[0, 1] > 0.6


def test_lesion_is_mostly_darker(drawn: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    darker = [image[mask > 0].mean() < image[mask == 0].mean() for image, mask in drawn]
    assert np.mean(darker) > 0.85


def test_skin_is_skin(drawn: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    skin = np.array([image[mask == 0].mean(axis=0) for image, mask in drawn])
    assert (skin[:, 0] > skin[:, 1]).all(), "more red than green"
    assert np.median(skin, axis=0) == pytest.approx((206, 151, 157), abs=20), "as in HAM10000"


def test_threshold_does_not_solve_it(drawn: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    dice = []
    for image, mask in drawn:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)
        found, lesion = grey <= threshold, mask > 0
        dice.append(2 * (found & lesion).sum() / (found.sum() + lesion.sum()))
    assert 0.5 < np.mean(dice) < 0.85


@pytest.mark.parametrize("artefact", ["_hairs", "_ruler", "_bubbles", "_light"])
def test_artefacts_leave_the_mask_alone(artefact: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lesions = [describe_lesion(0, number) for number in range(25)]

    def draw() -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        return [draw_lesion_images(lesion, width=48, height=36)[0] for lesion in lesions]

    before = draw()
    monkeypatch.setattr(invented_pictures, artefact, lambda rng, image: image)
    after = draw()
    assert any(not np.array_equal(a[0], b[0]) for a, b in zip(before, after, strict=True))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(before, after, strict=True))


def test_smallest_and_odd_sizes() -> None:
    for number in range(40):
        for image, mask in draw_lesion_images(describe_lesion(5, number), width=32, height=33, seed=5):
            assert image.shape == (33, 32, 3)
            assert image.dtype == np.uint8
            assert mask.shape == (33, 32)
            assert mask.any()
            assert not mask.all()


def test_same_set_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = small(tmp_path / "drawn")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(synthetic, "_write", lambda *_: pytest.fail("drawn again"))
    assert small(root) == root
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    assert len(metadata(small(tmp_path / "a" / "b"))) >= 2
    (tmp_path / "empty").mkdir()
    assert len(metadata(small(tmp_path / "empty"))) >= 2


def foreign_files(root: Path) -> None:
    root.mkdir()
    (root / "thesis.txt").write_text("precious")


def a_file(root: Path) -> None:
    root.write_text("precious")


def other_parameters(root: Path) -> None:
    small(root, seed=1)


def lost_mask(root: Path) -> None:
    small(root)
    next((root / MASK_FOLDER).iterdir()).unlink()


@pytest.mark.parametrize(
    ("prepare", "found"),
    [
        (foreign_files, "no finished synthetic data set"),
        (a_file, "no finished synthetic data set"),
        (other_parameters, "holds another synthetic data set: .*'seed': 1"),
        (lost_mask, "incomplete: image or mask of 1 of"),
    ],
)
def test_other_content_is_refused(prepare: Callable[[Path], None], found: str, tmp_path: Path) -> None:
    root = tmp_path / "there"
    prepare(root)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SkinsegError, match=f"there .*{found}.*(Name another folder|remove this one)"):
        small(root)
    assert sorted(tmp_path.rglob("*")) == before


def test_new_generator_does_not_reuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = small(tmp_path / "drawn")
    monkeypatch.setattr(synthetic, "GENERATOR_VERSION", synthetic.GENERATOR_VERSION + 1)
    with pytest.raises(SkinsegError, match="another synthetic data set"):
        small(root)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_when_writing_fails(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "drawn"
    seen = []

    def fail(*_: object, **__: object) -> None:
        seen.extend(path.name for path in tmp_path.iterdir())
        raise error

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(SkinsegError if isinstance(error, OSError) else KeyboardInterrupt) as raised:
        small(root)
    assert str(error) in str(raised.value)
    assert len(seen) == 1, "images were written when it failed"
    assert seen[0].startswith("."), "out of sight of readers"
    assert list(tmp_path.iterdir()) == []


def test_two_writers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "drawn"
    both_have_written = threading.Barrier(2, timeout=60)
    write = synthetic._write

    def write_and_wait(folder: Path, record: dict[str, int]) -> None:
        write(folder, record)
        both_have_written.wait()

    monkeypatch.setattr(synthetic, "_write", write_and_wait)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(small, [root, root])) == [root, root]
    assert [path.name for path in tmp_path.iterdir()] == ["drawn"]
    assert small(root) == root


@pytest.mark.parametrize(
    "argument",
    [{"lesions": 0}, {"lesions": 250_001}, {"width": 31}, {"height": 31}, {"seed": -1}],
)
def test_bad_arguments(argument: dict[str, int], tmp_path: Path) -> None:
    name, value = next(iter(argument.items()))
    with pytest.raises(SkinsegError, match=f"{name}={value}, expected"):
        small(tmp_path / "drawn", **argument)
    assert list(tmp_path.iterdir()) == []


def read_small(root: Path, *, seed: int = 0, verify: bool = True) -> Catalog:
    return read_synthetic(root, Problems(), lesions=3, width=32, height=32, seed=seed, verify=verify)


def test_catalog_says_synthetic(tmp_path: Path) -> None:
    table = read_small(tmp_path / "not yet there").table
    assert set(table["dataset"]) == {"synthetic"}
    assert set(table["mask_source"]) == {"synthetic"}
    assert set(table["licence"]) == {"none (drawn)"}
    assert table["group"].nunique() == 3
    assert all(Path(path).is_file() for path in [*table["image"], *table["mask"]])


def test_catalog_is_drawn_once(tmp_path: Path) -> None:
    first = read_small(tmp_path).table
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    pd.testing.assert_frame_equal(read_small(tmp_path).table, first)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_catalogs_of_a_root_lie_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    images = set(read_small(tmp_path).table["image"])
    images |= set(read_small(tmp_path, seed=1).table["image"])
    monkeypatch.setattr(synthetic, "GENERATOR_VERSION", synthetic.GENERATOR_VERSION + 1)
    images |= set(read_small(tmp_path).table["image"])
    folders = {path for path in tmp_path.iterdir() if path.is_dir()}
    assert len(folders) == 3, "other parameters and a new generator each have a folder"
    assert {Path(image).parents[1] for image in images} == folders
    assert all(folder.name.startswith("synthetic_") for folder in folders)


def test_catalog_verifies_on_demand(tmp_path: Path) -> None:
    image = Path(read_small(tmp_path).table["image"][0])
    image.write_bytes(image.read_bytes()[:-200])
    assert len(read_small(tmp_path, verify=False)) >= 3
    with pytest.raises(SkinsegError, match=image.name):
        read_small(tmp_path)


def test_catalog_below_a_file(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("precious")
    with pytest.raises(SkinsegError, match=r"data\.root=.*data is a file; expected a folder"):
        read_small(file)
    assert file.read_text() == "precious"


def test_drawn_images_are_not_found_as_real_ones(tmp_path: Path) -> None:
    read_synthetic(tmp_path, Problems(), lesions=10)
    with pytest.raises(SkinsegError, match="No HAM10000 here"):
        read_ham10000(tmp_path, Problems())
