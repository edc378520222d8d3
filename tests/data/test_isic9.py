"""The 9-class set: its layouts, its conflicts, and masks from elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import write_image, write_mask
from trees import ISIC9, mask_path, write_ham_metadata, write_isic9

from skinseg.data.catalog import Catalog
from skinseg.data.diagnoses import DIAGNOSES
from skinseg.data.diagnoses import ISIC9 as TERMS
from skinseg.data.problems import Problems
from skinseg.data.readers.isic9 import read_isic9
from skinseg.data.splits.make import make_split
from skinseg.errors import SkinsegError


def read(root: Path, *, metadata: tuple[str, ...] = (), **policy: str) -> Catalog:
    return read_isic9(root, Problems({"missing_mask": "keep"} | policy), metadata=metadata)  # type: ignore[arg-type, operator]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Six ids: one in two classes, one in Train and Test, two of HAM10000 that are one lesion."""
    root = write_isic9(
        tmp_path / "data",
        {
            "Train/nevus": ["ISIC_0000001", "ISIC_0024306"],
            "Train/melanoma": ["ISIC_0000002", "ISIC_0000003"],
            "Train/seborrheic keratosis": ["ISIC_0000002"],
            "Test/nevus": ["ISIC_0000001", "ISIC_0024307"],
            "Test/squamous cell carcinoma": ["ISIC_0000004"],
        },
    )
    write_ham_metadata(root / "HAM10000_metadata.csv", {"ISIC_0024306": "HAM_1", "ISIC_0024307": "HAM_1"})
    return root


def test_one_row_an_id(tree: Path) -> None:
    table = read(tree).table.set_index("image_id")
    assert len(table) == 6
    assert set(table["dataset"]) == {"isic9"}
    assert table["publisher_split"].to_dict() == {
        "ISIC_0000001": "train+test",
        "ISIC_0000002": "train",
        "ISIC_0000003": "train",
        "ISIC_0000004": "test",
        "ISIC_0024306": "train",
        "ISIC_0024307": "test",
    }
    assert table.loc["ISIC_0000004", "diagnosis"] == "akiec"
    assert table.loc["ISIC_0000004", "diagnosis_term"] == "squamous cell carcinoma"


def test_conflicting_diagnosis_is_none(tree: Path) -> None:
    catalog = read(tree)
    row = catalog.table.set_index("image_id").loc["ISIC_0000002"]
    assert row["diagnosis"] is None or pd.isna(row["diagnosis"])
    assert row["diagnosis_term"] == "melanoma | seborrheic keratosis"
    assert catalog.notes["conflicting_diagnosis"] == ["ISIC_0000002"]


def test_two_folders_of_one_diagnosis_do_not_conflict(tmp_path: Path) -> None:
    write_isic9(
        tmp_path,
        {f"Train/{k}": ["ISIC_0000001"] for k in ("pigmented benign keratosis", "seborrheic keratosis")},
    )
    catalog = read(tmp_path)
    assert catalog.table["diagnosis"].tolist() == ["bkl"]
    assert catalog.notes["conflicting_diagnosis"] == []


def test_lesions_of_ham10000_group_and_others_stand_alone(tree: Path) -> None:
    table = read(tree).table.set_index("image_id")
    assert table.loc["ISIC_0024306", "group"] == table.loc["ISIC_0024307", "group"] == "HAM_1"
    assert table.loc["ISIC_0000003", "group"] == "ISIC_0000003"
    assert table["group_source"].value_counts().to_dict() == {"image": 4, "ham10000": 2}


def test_lesions_of_the_archive(tree: Path) -> None:
    rows = {
        "isic_id": ["ISIC_0000003", "ISIC_0000004"],
        "lesion_id": ["IL_1", "IL_1"],
        "copyright_license": "CC-0",
    }
    pd.DataFrame(rows).to_csv(tree / "isic_archive_metadata.csv", index=False)
    table = read(tree).table.set_index("image_id")
    assert table.loc["ISIC_0000003", "group"] == table.loc["ISIC_0000004", "group"] == "IL_1"
    assert table.loc["ISIC_0000003", "group_source"] == "isic_archive"
    assert table.loc["ISIC_0000003", "licence"] == "CC-0"
    assert table.loc["ISIC_0000001", "licence"] == "unknown"


def test_lesions_that_two_files_know(tree: Path) -> None:
    """The Archive knows one image by its own lesion id, and lists the other one without any."""
    rows = {"isic_id": ["ISIC_0024306", "ISIC_0024307", "ISIC_0000003"], "lesion_id": ["IL_1", None, "IL_1"]}
    archive = tree / "archive.csv"
    pd.DataFrame(rows).to_csv(archive, index=False)
    groups = read(tree, metadata=(str(archive),)).table.set_index("image_id")["group"]
    assert groups["ISIC_0024306"] == groups["ISIC_0024307"] == groups["ISIC_0000003"]


def test_one_id_with_two_pictures_in_two_classes(tree: Path) -> None:
    write_image(tree / ISIC9 / "Train" / "seborrheic keratosis" / "ISIC_0000002.jpg", colour=(1, 2, 3))
    with pytest.raises(SkinsegError, match=r"ISIC_0000002 is there twice with different content"):
        read(tree)


def test_ham10000_images_without_lesion_id_are_refused(tree: Path, tmp_path: Path) -> None:
    metadata = tree / "HAM10000_metadata.csv"
    elsewhere = tmp_path / "elsewhere.csv"
    metadata.rename(elsewhere)
    with pytest.raises(
        SkinsegError, match=r"(?s)2 images of HAM10000 have no lesion id.*skinseg.download"
    ) as caught:
        read(tree)
    assert "ISIC_0024306" in str(caught.value)
    pd.read_csv(elsewhere).assign(lesion_id=None).to_csv(elsewhere, index=False)
    with pytest.raises(
        SkinsegError, match=r"HAM10000's metadata are here, but they have no lesion_id of these"
    ):
        read(tree, metadata=(str(elsewhere),))
    pd.read_csv(elsewhere).assign(lesion_id=["HAM_1", "HAM_1"]).to_csv(elsewhere, index=False)
    assert read(tree, missing_lesion="drop").dropped == {"missing_lesion": ["ISIC_0024306", "ISIC_0024307"]}
    assert read(tree, missing_lesion="keep").table["group"].nunique() == 6
    assert read(tree, metadata=(str(elsewhere),)).table["group"].nunique() == 5
    with pytest.raises(SkinsegError, match=r"data\.reader\.metadata: .*absent\.csv: no such file"):
        read(tree, metadata=(str(tmp_path / "absent.csv"),))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SkinsegError, match=r"other\.csv is neither HAM10000's metadata"):
        read(tree, metadata=(str(tmp_path / "other.csv"),))


def test_kaggles_double_mount(tree: Path) -> None:
    copy = tree / ISIC9.lower() / ISIC9
    shutil.copytree(tree / ISIC9, copy)
    assert len(read(tree)) == 6
    write_image(copy / "Train" / "nevus" / "ISIC_0000001.jpg", colour=(1, 2, 3))
    with pytest.raises(SkinsegError, match="ISIC_0000001 is there twice with different content"):
        read(tree)


def test_root_may_be_any_folder_on_the_way(tree: Path) -> None:
    inside = tree / ISIC9
    assert len(read(inside, missing_lesion="keep")) == 6, "Train and Test lie in it"
    assert len(read(tree.parent)) == 6


def test_case_and_blanks_of_folder_names(tree: Path) -> None:
    folder = tree / ISIC9 / "Train"
    (folder / "nevus").rename(folder / "Nevus ")
    folder.rename(tree / ISIC9 / "train")
    (tree / ISIC9).rename(tree / ISIC9.upper())
    table = read(tree).table
    assert len(table) == 6
    assert (table["diagnosis"] == "nv").sum() == 3


def test_empty_class_folder_is_noted(tree: Path) -> None:
    (tree / ISIC9 / "Test" / "dermatofibroma").mkdir()
    assert read(tree).notes["empty_class_folder"] == ["test/dermatofibroma"]


def test_unknown_class_folder(tree: Path) -> None:
    write_image(tree / ISIC9 / "Train" / "melanomas" / "ISIC_0000009.jpg")
    with pytest.raises(SkinsegError, match=r"Unknown class folders: .*melanomas.*Did you mean melanoma\?"):
        read(tree)


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(
        SkinsegError, match=r"(?s)No 9-class ISIC set in .*\n.*nodoubttome/skin-cancer9-classesisic"
    ):
        read(tmp_path)
    with pytest.raises(SkinsegError, match=r"data\.root=.*absent: no such folder"):
        read(tmp_path / "absent")


def test_a_file_under_two_ids_is_one_lesion(tree: Path) -> None:
    folder = tree / ISIC9 / "Train" / "melanoma"
    shutil.copy(folder / "ISIC_0000003.jpg", folder / "ISIC_0000099.jpg")
    catalog = read(tree)
    groups = catalog.table.set_index("image_id")["group"]
    assert groups["ISIC_0000003"] == groups["ISIC_0000099"]
    assert catalog.notes["same_file"] == ["ISIC_0000099"]


def test_downsampled_copy_is_the_same_image(tree: Path) -> None:
    folder = tree / ISIC9 / "Train" / "melanoma"
    write_image(folder / "ISIC_0000003_downsampled.jpg", size=(10, 8))
    write_image(folder / "ISIC_0000050_downsampled.jpg", size=(10, 8))
    catalog = read(tree)
    images = catalog.table.set_index("image_id")["image"]
    assert images["ISIC_0000003"].endswith("ISIC_0000003.jpg")
    assert images["ISIC_0000050"].endswith("ISIC_0000050_downsampled.jpg")
    assert catalog.notes["reduced_copy"] == ["ISIC_0000003"]


def test_unicode_blanks_and_links(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("Häute und Läsionen")
    (root / "verknüpft").symlink_to(tree, target_is_directory=True)
    (tree / "back").symlink_to(root, target_is_directory=True)
    assert len(read(root)) == 6, "a link back to a folder above must end"


def test_read_only_folder(tree: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        read(tree)
        assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before, "reading writes nothing"
    finally:
        for path in before:
            path.chmod(0o755)


def test_all_terms_have_a_common_one() -> None:
    assert len(TERMS) == 9
    assert set(TERMS.values()) == set(DIAGNOSES)


def test_masks_by_id_and_where_they_came_from(tree: Path) -> None:
    write_mask(mask_path(tree, "isic2018", "ISIC_0000001"))
    write_mask(mask_path(tree, "isic2017", "ISIC_0000001"), shift=2)
    write_mask(mask_path(tree, "isic2016", "ISIC_0000003"))
    write_mask(mask_path(tree, "ham10000", "ISIC_0024306"))
    write_mask(mask_path(tree, "imaplusplus", "ISIC_0000004"))
    catalog = read(tree)
    source = catalog.table.set_index("image_id")["mask_source"]
    assert source.dropna().to_dict() == {
        "ISIC_0000001": "isic2018",
        "ISIC_0000003": "isic2016",
        "ISIC_0000004": "imaplusplus",
        "ISIC_0024306": "ham10000",
    }
    assert catalog.record()["by_mask_source"] == {
        "none": 2, "isic2018": 1, "isic2016": 1, "imaplusplus": 1, "ham10000": 1,
    }  # fmt: skip
    both = catalog.annotations[catalog.annotations["image_id"] == "ISIC_0000001"]
    assert both["mask_source"].tolist() == ["isic2018", "isic2017"]
    other = read_isic9(tree, Problems({"missing_mask": "keep"}), masks=["isic2017", "isic2018"])
    assert other.table.set_index("image_id").loc["ISIC_0000001", "mask_source"] == "isic2017"


def test_mask_of_the_same_proportions_is_resized_and_others_refused(tree: Path) -> None:
    write_mask(mask_path(tree, "isic2018", "ISIC_0000001"), size=(40, 30))
    write_mask(mask_path(tree, "isic2018", "ISIC_0000003"), size=(200, 151))
    assert read(tree).notes["mask_resized"] == ["ISIC_0000001", "ISIC_0000003"]
    write_mask(mask_path(tree, "isic2018", "ISIC_0000004"), size=(15, 20))
    with pytest.raises(SkinsegError, match=r"15x20, its image is 20x15"):
        read(tree)


def test_no_mask_at_all(tree: Path) -> None:
    catalog = read(tree)
    assert catalog.table["mask"].isna().all()
    with pytest.raises(SkinsegError, match="there is nothing to train on or to score") as caught:
        make_split(catalog)
    for source in ("data=ham10000", "data=isic2018", "data=isic2017", "data=isic2016", "zenodo.14201692"):
        assert source in str(caught.value)
    with pytest.raises(SkinsegError, match=r"6 images have no mask.*=keep keeps them"):
        read(tree, missing_mask="error")


@pytest.mark.realdata
def test_real_masks(real_data: Path) -> None:
    facts = real_data.parent / "facts"
    catalog = read(
        real_data,
        metadata=tuple(str(facts / n) for n in ("HAM10000_metadata_full.csv", "isic_archive_metadata.csv")),
    )
    assert len(catalog) == 2202
    sources = catalog.table["mask_source"].fillna("none").value_counts().to_dict()
    # The sets of 2016 and IMA++ are not there, and HAM10000 only in part.
    assert sources == {"ham10000": 1231, "isic2018": 453, "isic2017": 22, "none": 206 + 4 + 273 + 13}
    assert len(catalog.notes["conflicting_diagnosis"]) == 155
    assert len(catalog.notes["mask_resized"]) == 475
    assert (catalog.table["publisher_split"] == "train+test").sum() == 18


@pytest.mark.realdata
def test_complete_mask_sources_resolve_all_but_13(real_data: Path, tmp_path: Path) -> None:
    """Rebuilds the tree and all mask sources from the published lists of ids, with tiny images."""
    facts = real_data.parent / "facts"
    manifest = pd.read_csv(facts / "isic9_manifest.csv")
    files: dict[str, list[str]] = {}
    for row in manifest.itertuples():
        files.setdefault(f"{row.split}/{row.folder}", []).append(str(row.isic_id))
    write_isic9(tmp_path, files)
    source = {"isic2018_task1": "isic2018", "isic2017_part1": "isic2017", "isic2016_part1": "isic2016"}
    for row in manifest.drop_duplicates("isic_id").itertuples():
        if row.mask_source != "none":
            write_mask(mask_path(tmp_path, source.get(row.mask_source, row.mask_source), row.isic_id))
    shutil.copy(facts / "HAM10000_metadata_full.csv", tmp_path / "HAM10000_metadata.csv")
    catalog = read(tmp_path)
    assert catalog.record()["by_mask_source"] == {
        "ham10000": 1437, "isic2018": 453, "imaplusplus": 273, "isic2017": 22, "none": 13, "isic2016": 4,
    }  # fmt: skip
    none = catalog.table.loc[catalog.table["mask"].isna(), "image_id"].tolist()
    assert none == (facts / "isic9_no_published_mask.txt").read_text().split()
    split = make_split(catalog, official=True)
    assert (
        len(split.left_out["from_test_for_it_is_in_train"]) + len(split.left_out["test_shares_lesion"])
        <= 18 + 26
    )
