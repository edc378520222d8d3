from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skinseg.data.catalog import COLUMNS, Catalog
from skinseg.data.splits.make import make_split
from skinseg.data.splits.split import SUBSETS, Split
from skinseg.errors import SkinsegError


def catalog(lesions: int = 200, diagnoses: tuple[str, ...] = ("nv", "nv", "nv", "mel", "bkl")) -> Catalog:
    generator = np.random.default_rng(0)
    rows = [
        {
            "image_id": f"{lesion:04d}_{picture}",
            "group": f"L{lesion}",
            "diagnosis": diagnoses[lesion % len(diagnoses)],
        }
        for lesion in range(lesions)
        for picture in range(generator.integers(1, 4))
    ]
    table = pd.DataFrame(rows).reindex(columns=COLUMNS).assign(mask="mask.png")
    return Catalog(table)


def test_no_lesion_on_two_sides_and_shares_met() -> None:
    data = catalog()
    split = make_split(data)
    subsets = split.table.groupby("group")["split"].nunique()
    assert (subsets == 1).all()
    shares = split.table["split"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.2, abs=0.01)
    assert shares["val"] == pytest.approx(0.1, abs=0.015)
    assert (
        sorted(itertools.chain(*(split.ids(subset) for subset in SUBSETS))) == data.table["image_id"].tolist()
    )


def test_stratified_by_diagnosis() -> None:
    data = catalog()
    merged = make_split(data).table.merge(data.table[["image_id", "diagnosis"]], on="image_id")
    shares = pd.crosstab(merged["split"], merged["diagnosis"], normalize="index")
    assert (shares.max() - shares.min() < 0.05).all()


def test_fingerprint_names_the_content() -> None:
    data = catalog()
    assert make_split(data).fingerprint == make_split(data).fingerprint
    assert make_split(data).fingerprint != make_split(data, seed=1).fingerprint
    shuffled = Split(make_split(data).table.sample(frac=1, random_state=0))
    assert shuffled.fingerprint == make_split(data).fingerprint


def test_folds_test_each_image_once() -> None:
    data = catalog()
    folds = [make_split(data, folds=5, fold=fold) for fold in range(5)]
    tested = sorted(itertools.chain(*(fold.ids("test") for fold in folds)))
    assert tested == data.table["image_id"].tolist()
    assert all(fold.ids("val") for fold in folds)


def test_a_group_on_two_sides_raises() -> None:
    table = make_split(catalog()).table
    torn = table["group"] == table.loc[table["group"].duplicated(), "group"].iloc[0]
    table.loc[torn.idxmax(), "split"] = "test"
    table.loc[torn[::-1].idxmax(), "split"] = "train"
    with pytest.raises(SkinsegError, match="1 lesion is in two subsets"):
        Split(table)


def test_file_round_trip(tmp_path: Path) -> None:
    data, path = catalog(), tmp_path / "split.csv"
    split = make_split(data, seed=3)
    split.table.to_csv(path, index=False)
    assert make_split(data, file=str(path)).fingerprint == split.fingerprint


def test_file_that_tears_a_group_the_catalog_knows_of(tmp_path: Path) -> None:
    data, path = catalog(), tmp_path / "split.csv"
    # A group of its own for each image, as from a reader that knows of no lesions.
    table = make_split(data).table
    table["split"] = np.where(np.arange(len(table)) % 2, "train", "test")
    table.assign(group=table["image_id"]).to_csv(path, index=False)
    with pytest.raises(SkinsegError, match="in two subsets"):
        make_split(data, file=str(path))


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    with pytest.raises(SkinsegError, match=r"data\.split\.file=.*not a readable CSV"):
        make_split(catalog(), file=str(path))
    path.write_text("image_id,group\na,train\n")
    with pytest.raises(SkinsegError, match=r"lacks the columns \['split'\]"):
        make_split(catalog(), file=str(path))
    path.write_text("image_id,group,split\nabsent,g,train\n")
    with pytest.raises(SkinsegError, match=r"lists 1 image that the data lack or .*, e\.g\. absent"):
        make_split(catalog(), file=str(path))
    path.write_text("image_id,group,split\n0000_0,g,holdout\n")
    with pytest.raises(SkinsegError, match=r"subsets \['holdout'\]"):
        make_split(catalog(), file=str(path))


def test_ids_and_sides_of_a_file_are_cleaned(tmp_path: Path) -> None:
    data, path = catalog(), tmp_path / "split.csv"
    split = make_split(data)
    table = split.table.assign(
        image_id=split.table["image_id"] + ".jpg", split=split.table["split"].str.title()
    )
    table.assign(group=" ").to_csv(path, index=False)
    assert make_split(data, file=str(path)).fingerprint == split.fingerprint
    table.assign(split=table["split"].where(table.index > 1, " ")).to_csv(path, index=False)
    with pytest.raises(SkinsegError, match=r"split\.csv: 2 rows have no split; complete or remove them"):
        make_split(data, file=str(path))


def test_a_diagnosis_with_one_lesion() -> None:
    data = catalog(60, ("nv",) * 59 + ("df",))
    assert (data.table["diagnosis"] == "df").any()
    split = make_split(data)
    assert len(split.table) == len(data.table)


def test_every_diagnosis_rare() -> None:
    assert make_split(catalog(20, tuple("abcdefghij"))).ids("test")


def test_fewer_lesions_than_folds() -> None:
    with pytest.raises(SkinsegError, match=r"data\.split\.folds needs 5 folds, but there are only 4 lesions"):
        make_split(catalog(4), folds=5)
    with pytest.raises(SkinsegError, match=r"data\.split\.test needs 5 folds"):
        make_split(catalog(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": 0.7}, r"data\.split\.test=0\.7"),
        ({"val": 0}, r"data\.split\.val=0"),
        ({"folds": 5, "fold": 5}, r"data\.split\.fold=5"),
        ({"folds": 1}, r"data\.split\.folds=1"),
    ],
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(SkinsegError, match=message):
        make_split(catalog(), **options)  # type: ignore[arg-type]


def test_images_without_mask_take_no_part() -> None:
    data = catalog()
    table = data.table.copy()
    table.loc[:9, "mask"] = None
    split = make_split(Catalog(table))
    assert len(split.table) == len(table) - 10


def leaky_catalog() -> Catalog:
    """200 images of 100 lesions."""
    rows = [{"image_id": f"{i:03d}", "group": f"L{i // 2}", "diagnosis": "nv"} for i in range(200)]
    return Catalog(pd.DataFrame(rows).reindex(columns=COLUMNS).assign(mask="mask.png"))


def test_split_by_image_is_stamped() -> None:
    split = make_split(leaky_catalog(), unit="image")
    assert split.record()["group_key"] == "image"
    trained = set(split.table.loc[split.table["split"] == "train", "group"])
    test = split.table[split.table["split"] == "test"]
    leaked = int(test["group"].isin(trained).sum())
    assert leaked > 20
    assert split.stamps == [
        f"LEAKY: split by image; {leaked} of 40 test images show a lesion that was trained on"
    ]
    assert make_split(leaky_catalog()).stamps == []


def test_leaky_file_is_refused_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    split = make_split(leaky_catalog(), unit="image")
    split.table.drop(columns="group").to_csv(path, index=False)
    with pytest.raises(
        SkinsegError, match=r"data\.split\.file=.*lesions are in two subsets.*data\.split\.unit=image"
    ):
        make_split(leaky_catalog(), file=str(path))
    assert make_split(leaky_catalog(), file=str(path), unit="image").fingerprint == split.fingerprint


def test_file_names_images_that_it_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    table = make_split(leaky_catalog()).table
    table[table["group"] != "L7"].to_csv(path, index=False)
    assert make_split(leaky_catalog(), file=str(path)).left_out == {"not_in_split_file": ["014", "015"]}


def published(subsets: dict[str, str]) -> Catalog:
    """A catalog with the publisher's subsets by image id; ids of the same first letter are one lesion."""
    rows = [
        {"image_id": i, "group": i[0], "publisher_split": subset, "diagnosis": "nv"}
        for i, subset in subsets.items()
    ]
    return Catalog(pd.DataFrame(rows).reindex(columns=COLUMNS).assign(mask="mask.png"))


def test_official_division_without_its_overlap() -> None:
    subsets = {
        "a1": "train",
        "b1": "train",
        "c1": "train",
        "d1": "train+test",
        "b2": "test",
        "e1": "test",
        "e2": "test",
    }
    split = make_split(published(subsets), official=True, val=0.25)
    assert split.ids("test") == ["e1", "e2"]
    assert "d1" in split.ids("train") + split.ids("val")
    assert split.left_out["from_test_for_it_is_in_train"] == ["d1"]
    assert split.left_out["test_shares_lesion"] == ["b2"]
    assert split.record()["left_out"]["test_shares_lesion"] == {"count": 1, "image_ids": ["b2"]}  # type: ignore[index]


def test_official_validation_side_without_its_overlap() -> None:
    subsets = {"a1": "train", "b1": "train", "b2": "val", "c1": "val", "c2": "test", "d1": "test"}
    split = make_split(published(subsets), official=True)
    assert (split.ids("train"), split.ids("val"), split.ids("test")) == (["a1", "b1"], ["c1"], ["d1"])
    assert split.left_out["val_shares_lesion"] == ["b2"]
    with pytest.raises(SkinsegError, match="exclude each other"):
        make_split(published(subsets), official=True, folds=2)


def test_pseudo_masks_are_trained_on_and_never_scored(tmp_path: Path) -> None:
    plain = leaky_catalog().table
    pseudo = plain["image_id"].isin(["000", "003", "100", "101", "157"])
    data = Catalog(plain.assign(mask_source=np.where(pseudo, "pseudo", "ham10000")))
    split = make_split(data)
    subsets = split.table.set_index("image_id")["split"]
    scored = set(split.table.loc[split.table["split"] != "train", "group"])
    for image_id in plain["image_id"][pseudo]:
        assert subsets.get(image_id, "left out") in ("train", "left out")
    clash = split.left_out["pseudo_mask_of_scored_lesion"]
    assert set(plain.set_index("image_id").loc[clash, "group"]) <= scored
    assert len(split.table) + len(clash) == 200
    path = tmp_path / "own.csv"
    split.table.assign(split="test").to_csv(path, index=False)
    with pytest.raises(SkinsegError, match=r"scores .* images by pseudo masks"):
        make_split(data, file=str(path))
