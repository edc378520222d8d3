"""Where masks are looked for, and what is said of a source that is not one."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pytest
from conftest import write_mask
from trees import mask_path, write_ham_metadata, write_isic9

from skinseg.data.files import walk
from skinseg.data.problems import Problems
from skinseg.data.readers.combined import read_combined
from skinseg.data.readers.ham10000 import read_ham10000
from skinseg.data.readers.isic9 import read_isic9
from skinseg.data.readers.masks import find_masks
from skinseg.data.readers.synthetic import read_synthetic
from skinseg.errors import SkinsegError

ID = "ISIC_0000001"


def test_own_and_pseudo_folders_come_in_the_order_given(tmp_path: Path) -> None:
    own = write_mask(tmp_path / "my masks" / f"{ID}.png").parent
    pseudo = write_mask(tmp_path / "drawn" / f"{ID}_mask.png").parent
    write_mask(mask_path(tmp_path / "data", "isic2018", ID))
    sources = [f"own:{own}", "isic2018", f"pseudo:{pseudo}"]
    found = find_masks(list(walk(tmp_path / "data")), sources)
    assert found["mask_source"].tolist() == ["own", "isic2018", "pseudo"]
    assert found["image_id"].tolist() == [ID] * 3
    assert find_masks(list(walk(tmp_path / "data")), sources[::-1])["mask_source"].tolist() == [
        "pseudo", "isic2018", "own",
    ]  # fmt: skip


def test_a_published_source_elsewhere(tmp_path: Path) -> None:
    folder = write_mask(tmp_path / "elsewhere" / f"{ID}_A03_T1_S1_5ab.png").parent
    found = find_masks([], [f"imaplusplus:{folder}"])
    assert found["annotator"].tolist() == ["A03_T1_S1"]


def test_annotators_experts_and_manual_tools_first_consensus_left_out(tmp_path: Path) -> None:
    names = ("A00_T3_S1_a", "A01_T1_S2_b", "A02_T1_S1_c", "ST_ST_ST_ST", "MV_MV_MV_MV")
    for name in names:
        write_mask(tmp_path / "segs" / f"{ID}_{name}.png")
    found = find_masks(list(walk(tmp_path)), ["imaplusplus"])
    assert found["annotator"].tolist() == ["A02_T1_S1", "A00_T3_S1", "A01_T1_S2"]


def test_a_folder_of_the_users_comes_first_and_says_whose_masks_it_holds(tmp_path: Path) -> None:
    given = tmp_path / "given"
    write_mask(mask_path(given / "deep", "isic2018", ID))
    write_mask(given / "ISIC_0000002_mask.png")
    write_mask(mask_path(tmp_path / "data", "isic2017", ID), shift=1)
    found = find_masks(list(walk(tmp_path / "data")), ["isic2017"], given)
    assert set(zip(found["image_id"], found["mask_source"], strict=True)) == {
        (ID, "isic2018"), ("ISIC_0000002", "own"), (ID, "isic2017"),
    }  # fmt: skip
    assert found.drop_duplicates("image_id").set_index("image_id").loc[ID, "mask_source"] == "isic2018"
    readers = {"isic9": read_isic9, "ham10000": partial(read_ham10000, metadata=str(tmp_path / "m.csv"))}
    write_isic9(tmp_path / "data", {"Train/nevus": [ID, "ISIC_0000002"]})
    write_ham_metadata(tmp_path / "m.csv", {ID: "HAM_1", "ISIC_0000002": "HAM_2"})
    for name, reader in readers.items():
        table = reader(tmp_path / "data", Problems(), mask_folder=given).table
        assert table["mask_source"].tolist() == ["isic2018", "own"], name
    both = read_combined(tmp_path / "data", Problems(), readers=readers, mask_folder=given)
    assert both.table["mask_source"].tolist() == ["isic2018", "own"]
    with pytest.raises(SkinsegError, match="drawn images have masks of their own"):
        read_synthetic(tmp_path / "drawn", Problems(), mask_folder=given)


def test_two_masks_of_one_source_that_differ_are_refused(tmp_path: Path) -> None:
    for number, root in enumerate((tmp_path / "a", tmp_path / "b")):
        write_mask(mask_path(root, "isic2018", ID), shift=number)
    with pytest.raises(SkinsegError, match=f"The mask of {ID} is there twice with different content"):
        find_masks(list(walk(tmp_path)), ["isic2018"])
    with pytest.raises(SkinsegError, match=f"The mask of {ID} is there twice with different content"):
        find_masks([], [], tmp_path)


def test_a_second_copy_is_not_a_second_annotator(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "ISIC2018_Task1_Training_GroundTruth"):
        write_mask(mask_path(root, "isic2018", ID))
    assert len(find_masks(list(walk(tmp_path)), ["isic2018"])) == 1


def test_junk_is_no_mask(tmp_path: Path) -> None:
    write_mask(mask_path(tmp_path / "__MACOSX", "isic2018", ID))
    write_mask(mask_path(tmp_path, "isic2018", f"._{ID}"))
    write_mask(tmp_path / "ISIC2018_Task1_Training_GroundTruth" / "ATTRIBUTION.txt.png").rename(
        tmp_path / "ISIC2018_Task1_Training_GroundTruth" / "ATTRIBUTION.txt"
    )
    assert find_masks(list(walk(tmp_path)), ["isic2018"]).empty


def test_zip_beside_is_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "ISIC2018_Task1_Training_GroundTruth.zip").touch()
    (tmp_path / "unrelated.zip").touch()
    with caplog.at_level(logging.WARNING):
        find_masks(list(walk(tmp_path)), ["isic2018"])
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'ISIC2018_Task1_Training_GroundTruth.zip'} is not unpacked; its masks are not used."
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("isic2019", "unknown source 'isic2019'; known: ham10000, isic2018"),
        ("own:{tmp}/absent", r"own:.*absent: no such folder\.$"),
        ("own:{tmp}/packed", r"own:.*packed: no such folder; packed\.zip beside it is not unpacked yet"),
        ("own:{tmp}/packed.zip", r"packed\.zip is a file, expected a folder of PNG masks; unpack it"),
        ("own:{tmp}/empty", "holds no mask; expected files such as ISIC_0000000_segmentation.png"),
    ],
)
def test_bad_sources(tmp_path: Path, entry: str, message: str) -> None:
    (tmp_path / "packed.zip").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SkinsegError, match=message):
        find_masks([], [entry.format(tmp=tmp_path)])
