"""Where masks are looked for, and what is said of a source that is not one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from conftest import write_mask
from trees import mask_path

from skinseg.data.files import walk
from skinseg.data.masks import find_masks
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
