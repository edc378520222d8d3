"""The ISIC Challenges' own layouts and official divisions."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import write_image, write_mask

from skinseg.data.catalog import Catalog
from skinseg.data.problems import Problems
from skinseg.data.readers.challenge import read_challenge
from skinseg.data.splits.make import make_split
from skinseg.errors import SkinsegError

SUBSETS = {
    2018: {
        subset: (
            f"ISIC2018_Task1-2_{subset}_Input",
            f"ISIC2018_Task1_{subset}_GroundTruth",
            "_segmentation.png",
        )
        for subset in ("Training", "Validation", "Test")
    },
    2017: {
        subset: (f"ISIC-2017_{subset}_Data", f"ISIC-2017_{subset}_Part1_GroundTruth", "_segmentation.png")
        for subset in ("Training", "Validation", "Test_v2")
    },
    2016: {
        subset: (
            f"ISBI2016_ISIC_Part1_{subset}_Data",
            f"ISBI2016_ISIC_Part1_{subset}_GroundTruth",
            "_Segmentation.png",
        )
        for subset in ("Training", "Test")
    },
}
COUNT = {"Training": 12, "Validation": 2, "Test": 4, "Test_v2": 4}


def write_challenge(root: Path, year: int, subsets: tuple[str, ...] | None = None) -> Path:
    number = 0
    for subset, (images, masks, ending) in SUBSETS[year].items():
        for _ in range(COUNT[subset] if subsets is None or subset in subsets else 0):
            number += 1
            image_id = f"ISIC_{number:07d}"
            write_image(root / images / f"{image_id}.jpg")
            write_mask(root / masks / f"{image_id}{ending}")
    return root


def read(root: Path, year: int) -> Catalog:
    return read_challenge(root, Problems(), year=year)


@pytest.mark.parametrize("year", [2018, 2017, 2016])
def test_official_division(tmp_path: Path, year: int) -> None:
    write_challenge(tmp_path, year)
    (tmp_path / SUBSETS[year]["Training"][0] / "ISIC_0000001_superpixels.png").touch()
    catalog = read(tmp_path, year)
    expected = {"train": 12, "val": 2, "test": 4} if year > 2016 else {"train": 12, "test": 4}
    assert catalog.table["publisher_split"].value_counts().to_dict() == expected
    assert set(catalog.table["mask_source"]) == {f"isic{year}"}
    split = make_split(catalog, official=True, val=0.25)
    assert split.table["split"].value_counts()["test"] == 4
    assert len(split.ids("val")) == (2 if year > 2016 else 3)


def test_official_division_in_part(tmp_path: Path) -> None:
    write_challenge(tmp_path, 2018, subsets=("Training",))
    catalog = read(tmp_path, 2018)
    with pytest.raises(SkinsegError, match=r"only train is here; .*data\.split\.official=false"):
        make_split(catalog, official=True)
    assert len(make_split(catalog).ids("test")) > 0


def test_no_official_division(write_ham, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from skinseg.data.readers.ham10000 import read_ham10000

    catalog = read_ham10000(write_ham(6), Problems())
    with pytest.raises(SkinsegError, match="12 of the 12 images with a mask are in no subset of a publisher"):
        make_split(catalog, official=True)


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(
        SkinsegError, match=r"(?s)ISIC2018_Task1-2_Training_Input.*skinseg.download data=isic2018"
    ):
        read(tmp_path, 2018)
    with pytest.raises(SkinsegError, match="no such folder"):
        read(tmp_path / "absent", 2018)
    with pytest.raises(SkinsegError, match=r"data\.reader\.year=2019: expected one of \[2016, 2017, 2018\]"):
        read(tmp_path, 2019)


@pytest.mark.realdata
def test_real_training_set(real_data: Path) -> None:
    archive = real_data.parent / "facts" / "isic_archive_metadata.csv"
    catalog = read_challenge(real_data, Problems(), year=2018, metadata=[str(archive)], verify="headers")
    assert len(catalog) == 2594
    assert catalog.table["mask"].notna().all()
    assert (catalog.table["group_source"] == "isic_archive").sum() == 1058
    assert catalog.table["diagnosis"].value_counts().to_dict() == {"nv": 1863, "mel": 519, "bkl": 119}
