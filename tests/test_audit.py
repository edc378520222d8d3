"""The audit: every kind of fault planted and found, and the facts of the real sets."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import WriteHam, chosen, write_image, write_mask
from PIL import Image
from trees import ISIC9, write_ham_metadata, write_isic9

from skinseg.audit import AuditConfig, run
from skinseg.config.check import check
from skinseg.config.compose import compose, config_dir, plain
from skinseg.errors import SkinsegError

Audit = Callable[..., dict[str, dict[str, object]]]
Plant = Callable[[Path], object]
FIRST, SECOND, THIRD = "ISIC_9000000", "ISIC_9000001", "ISIC_9000002"


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    """Returns a function that audits in this process and returns the findings by kind."""

    def run_audit(*overrides: str) -> dict[str, dict[str, object]]:
        run(compose([f"run_dir={tmp_path / 'audit'}", *overrides], "audit"))
        found = json.loads((tmp_path / "audit" / "audit.json").read_text())["findings"]
        return {finding["kind"]: finding for finding in found}

    return run_audit


def mask_of(root: Path, image_id: str) -> Path:
    return root / "HAM10000_segmentations_lesion_tschandl" / f"{image_id}_segmentation.png"


def image_of(root: Path, image_id: str) -> Path:
    return next(root.glob(f"HAM10000_images_part_?/{image_id}.jpg"))


def disc(size: tuple[int, int], *boxes: tuple[int, int, int, int], hole: bool = False) -> Image.Image:
    mask = np.zeros((size[1], size[0]), np.uint8)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = 255
    if hole:
        mask[12:14, 12:14] = 0
    return Image.fromarray(mask)


def test_sound_data(
    audit: Audit, write_ham: WriteHam, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(f"data.root={write_ham(6)}") == {}
    out = capsys.readouterr().out
    assert "USABLE." in out
    facts = json.loads((tmp_path / "audit" / "audit.json").read_text())["facts"]
    assert facts["totals"] == {
        "files": 12, "images": 12, "images_of_ham10000": 0, "lesion_ids": 6, "lesions": 6, "with_mask": 12,
    }  # fmt: skip
    assert facts["images_per_lesion"] == {"2": 6}
    assert facts["size"] == {"40x32": 12}
    assert facts["licence"] == {"CC BY-NC 4.0": 12}
    measures = pd.read_csv(tmp_path / "audit" / "images.csv")
    assert len(measures) == 12
    assert measures["lesion_share"].between(0.05, 0.5).all()
    assert (measures["contrast"] > 10).all(), "dark discs on light squares"


SIZE = (40, 32)
BOX = (9, 9, 20, 20)


def plant_mask(*boxes: tuple[int, int, int, int], size: tuple[int, int] = SIZE, hole: bool = False) -> Plant:
    return lambda root: disc(size, *boxes, hole=hole).save(mask_of(root, FIRST))


def cut_short(path: Path) -> None:
    """Takes the last part of a JPEG's pixels away, and keeps the mark of its end."""
    path.write_bytes(path.read_bytes()[:-200] + b"\xff\xd9")


def invert(path: Path) -> None:
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


FAULTS: dict[str, tuple[str, Plant]] = {
    "missing_image": ("problem", lambda root: image_of(root, FIRST).unlink()),
    "missing_mask": ("problem", lambda root: mask_of(root, FIRST).unlink()),
    "unreadable": ("problem", lambda root: image_of(root, FIRST).write_bytes(b"no image")),
    "mask_size": ("problem", plant_mask(BOX, size=(40, 40))),
    "mask_format": ("problem", lambda root: Image.new("L", SIZE, 1).save(mask_of(root, FIRST))),
    "blank_image": ("problem", lambda root: Image.new("RGB", SIZE, "tan").save(image_of(root, FIRST))),
    "empty_mask": ("problem", plant_mask()),
    "full_mask": ("caution", plant_mask((0, 0, 32, 40))),
    "damaged_file": ("caution", lambda root: cut_short(image_of(root, FIRST))),
    "inverted_mask": ("caution", lambda root: invert(mask_of(root, FIRST))),
    "mask_resized": ("note", plant_mask((20, 20, 50, 50), size=(80, 64))),
    "several_regions": ("note", plant_mask(BOX, (22, 22, 28, 28))),
    "holes": ("note", plant_mask(BOX, hole=True)),
    "touches_border": ("note", plant_mask((0, 9, 20, 20))),
    "lighter_lesion": ("note", plant_mask((0, 0, 5, 40), (27, 0, 32, 40))),
    "same_file": ("caution", lambda root: shutil.copyfile(image_of(root, THIRD), image_of(root, FIRST))),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_fault(audit: Audit, write_ham: WriteHam, kind: str) -> None:
    root = write_ham(6)
    severity, plant = FAULTS[kind]
    plant(root)
    found = audit(f"data.root={root}")
    assert found[kind]["severity"] == severity
    # Of two files with the same bytes the second one is the copy.
    assert found[kind]["image_ids"] == [THIRD if kind == "same_file" else FIRST]


BOXES = {
    "an inverted lesion": ([(9, 9, 20, 20)], True, True),
    "one at the edge": ([(0, 9, 20, 20)], True, True),
    "two": ([(9, 9, 12, 12), (20, 20, 24, 30)], True, True),
    "from edge to edge": ([(9, 0, 20, 40)], True, True),
    "a lesion": ([(9, 9, 20, 20)], False, False),
    "the whole frame": ([(0, 0, 32, 40)], False, False),
    "all but a part of the edge": ([(0, 0, 32, 40)], "edge", False),
    "three corners": ([(0, 0, 32, 30), (0, 0, 20, 40)], False, False),
}


@pytest.mark.parametrize("case", BOXES)
def test_masks_that_may_be_inverted(audit: Audit, write_ham: WriteHam, case: str) -> None:
    boxes, inverted, found = BOXES[case]
    mask = np.asarray(disc(SIZE, *boxes)).copy()
    if inverted == "edge":
        mask[0, 10:20] = 0
    root = write_ham(6)
    Image.fromarray(255 - mask if inverted is True else mask).save(mask_of(root, FIRST))
    findings = audit(f"data.root={root}", "near_duplicates=false")
    assert ("inverted_mask" in findings) == found
    if found:
        assert findings["inverted_mask"]["image_ids"] == [FIRST]
        assert str(findings["inverted_mask"]["text"]).startswith("1 mask (8.3%) has lesion in all four")


def test_lesions_that_vanish_at_the_networks_size(audit: Audit, write_ham: WriteHam, tmp_path: Path) -> None:
    root = write_ham(6, size=(160, 128))
    plant_mask((58, 58, 61, 62), size=(160, 128))(root)
    Image.new("L", (160, 128)).save(mask_of(root, SECOND))
    options = (f"data.root={root}", "near_duplicates=false")
    found = audit(*options, "data.image_size=[32,40]")
    assert found["vanishing_lesion"]["severity"] == "caution"
    assert found["vanishing_lesion"]["image_ids"] == [FIRST]
    assert found["empty_mask"]["image_ids"] == [SECOND]
    listed = pd.read_csv(tmp_path / "audit" / "findings.csv")
    assert ("caution", "vanishing_lesion", FIRST) in set(listed.itertuples(index=False, name=None))
    measures = pd.read_csv(tmp_path / "audit" / "images.csv").set_index("image_id")
    assert measures.loc[FIRST, ["lesion_share", "input_share"]].tolist() == [12 / (160 * 128), 0]
    assert "vanishing_lesion" not in audit(*options, "data.image_size=[128,160]")


def test_what_a_run_would_drop_or_keep_is_milder(audit: Audit, write_ham: WriteHam) -> None:
    root = write_ham(6)
    mask_of(root, FIRST).unlink()
    assert audit(f"data.root={root}", "data.on_missing_mask=keep")["missing_mask"]["severity"] == "note"
    assert audit(f"data.root={root}", "data.on_missing_mask=drop")["missing_mask"]["severity"] == "caution"


def test_near_duplicates_of_two_lesions_and_how_to_join_them(
    audit: Audit, write_ham: WriteHam, tmp_path: Path
) -> None:
    root = write_ham(6, size=(160, 120))
    Image.open(image_of(root, FIRST)).save(image_of(root, THIRD), quality=60)
    Image.open(image_of(root, FIRST)).save(image_of(root, SECOND), quality=70)
    found = audit(f"data.root={root}")
    assert found["near_duplicates"]["image_ids"] == [FIRST, SECOND, THIRD]
    assert "near_duplicates" not in audit(f"data.root={root}", "near_duplicates=false")
    audit(f"data.root={root}")
    pairs = tmp_path / "audit" / "near_duplicates.csv"
    assert pd.read_csv(pairs)["same_lesion"].sum() == 1
    joined = audit(f"data.root={root}", f"data.same_lesion={pairs}")
    assert "near_duplicates" not in joined
    for content, message in (("x,y\n1,2\n", "expected a and b"), ("", "not a readable CSV")):
        (tmp_path / "pairs.csv").write_text(content)
        with pytest.raises(SkinsegError, match=rf"data\.same_lesion=.*{message}"):
            audit(f"data.root={root}", f"data.same_lesion={tmp_path / 'pairs.csv'}")


def test_contamination_of_two_data_sets(audit: Audit, write_ham: WriteHam, tmp_path: Path) -> None:
    root = write_ham(6, size=(160, 120))
    other = tmp_path / "other"
    images, masks = other / "ISIC2018_Task1-2_Training_Input", other / "ISIC2018_Task1_Training_GroundTruth"
    for image_id in (FIRST, "ISIC_0000001", "ISIC_0000002"):
        write_image(images / f"{image_id}.jpg", size=(160, 120))
        write_mask(masks / f"{image_id}_segmentation.png", size=(160, 120))
    Image.open(image_of(root, THIRD)).save(images / "ISIC_0000001.jpg", quality=60)
    audit(f"data.root={root}", "test_data=isic2018", f"test_data.root={other}")
    rows = json.loads((tmp_path / "audit" / "audit.json").read_text())["contamination"]
    of = {row["images_of"]: row for row in rows}["isic2018 (test)"]
    assert (of["images"], of["by_id"], of["by_lesion"], of["by_near_duplicate"]) == (3, 1, 0, 1)
    listed = pd.read_csv(tmp_path / "audit" / "contamination.csv")
    listed = listed[listed["images_of"] == "isic2018 (test)"]
    assert dict(zip(listed["image_id"], listed["by"], strict=True)) == {
        FIRST: "id",
        "ISIC_0000001": "near duplicate",
    }
    audit(f"data.root={root}")
    assert not (tmp_path / "audit/contamination.csv").exists(), "what the next call does not say goes"


def test_agreement_of_annotators_and_a_model_beside_it(
    audit: Audit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    image_id = "ISIC_0000001"
    write_image(root / "ISIC2018_Task1-2_Training_Input" / f"{image_id}.jpg", size=(40, 40))
    for who, shift in (("A00_T1_S1_a", 0), ("A01_T1_S2_b", 5)):
        write_mask(root / "segs" / f"{image_id}_{who}.png", size=(40, 40), shift=shift)
    scores = tmp_path / "scores.csv"
    pd.DataFrame({"image_id": [image_id, "other"], "dice": [0.75, 0.1]}).to_csv(scores, index=False)
    audit("data=isic2018", f"data.root={root}", "data.reader.masks=[imaplusplus]", f"scores={scores}")
    pairs = pd.read_csv(tmp_path / "audit" / "agreement.csv")
    assert pairs[["first", "second"]].to_numpy().tolist() == [
        ["imaplusplus A00_T1_S1", "imaplusplus A01_T1_S2"]
    ]
    assert pairs["dice"].tolist() == [0.5]
    out = capsys.readouterr().out
    assert "0.75" in out
    assert "1 of these images" in out
    scores.write_text("a,b\n")
    with pytest.raises(SkinsegError, match=r"scores=.*lacks the columns \['image_id'\]"):
        audit("data=isic2018", f"data.root={root}", f"scores={scores}")


def test_scores_that_a_spreadsheet_saved(
    audit: Audit, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "data"
    write_image(root / "ISIC2018_Task1-2_Training_Input" / "ISIC_0000001.jpg", size=(40, 40))
    for who, shift in (("A00_T1_S1_a", 0), ("A01_T1_S2_b", 5)):
        write_mask(root / "segs" / f"ISIC_0000001_{who}.png", size=(40, 40), shift=shift)
    words = ["data=isic2018", f"data.root={root}", "data.reader.masks=[imaplusplus]"]
    scores = tmp_path / "scores.csv"
    scores.write_bytes(
        "image_id;dice;jaccard\nisic_0000001.jpg;0,75;12. Mai\nother;0,1;0,1\n".encode("utf-16")
    )
    with caplog.at_level(logging.WARNING):
        audit(*words, f"scores={scores}")
    assert "0.75" in capsys.readouterr().out
    assert "1 of the 2 values of the column jaccard is no number from 0 to 1" in caplog.text
    assert "1 of 2 rows matches the 1 image; these do not: other" in caplog.text
    scores.write_text("image_id,dice\nother,0.1\n")
    with pytest.raises(SkinsegError, match=r"none of its 1 row matches any of the 1 image"):
        audit(*words, f"scores={scores}")


def test_a_model_that_finds_nothing_is_not_set_above_the_annotators(
    audit: Audit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, image_ids = tmp_path / "data", ["ISIC_0000001", "ISIC_0000002"]
    for image_id in image_ids:
        write_image(root / "ISIC2018_Task1-2_Training_Input" / f"{image_id}.jpg", size=(40, 40))
        for who, shift in (("A00_T1_S1_a", 0), ("A01_T1_S2_b", 5)):
            write_mask(root / "segs" / f"{image_id}_{who}.png", size=(40, 40), shift=shift)
    scores = {"image_id": image_ids, "dice": [0.9, 0], "hd95": [1, None], "hd95_percent": [2, None]}
    path = tmp_path / "scores.csv"
    pd.DataFrame(scores).assign(height=40, width=40).to_csv(path, index=False)
    audit("data=isic2018", f"data.root={root}", "data.reader.masks=[imaplusplus]", f"scores={path}")
    out = capsys.readouterr().out
    assert "counts as its diagonal" in out
    assert "51.0" in out, "the mean of 2 % and 100 % of the diagonal"
    pd.DataFrame(scores).to_csv(path, index=False)
    with pytest.raises(SkinsegError, match=r"scores=.*hd95 is undefined on 1 image, and height is missing"):
        audit("data=isic2018", f"data.root={root}", "data.reader.masks=[imaplusplus]", f"scores={path}")


def test_agreement_is_measured_at_the_images_own_size(audit: Audit, tmp_path: Path) -> None:
    root = tmp_path / "data"
    image_id = "ISIC_0000001"
    write_image(root / "ISIC2018_Task1-2_Training_Input" / f"{image_id}.jpg", size=(160, 160))
    for who, shift in (("A00_T1_S1_a", 0), ("A01_T1_S2_b", 5)):
        write_mask(root / "segs" / f"{image_id}_{who}.png", size=(40, 40), shift=shift)
    audit("data=isic2018", f"data.root={root}", "data.reader.masks=[imaplusplus]")
    assert pd.read_csv(tmp_path / "audit" / "agreement.csv")["hd95"].tolist() == [20]


def test_the_9_class_set(audit: Audit, tmp_path: Path) -> None:
    files = {
        "Train/nevus": ["ISIC_0000001"],
        "Train/melanoma": ["ISIC_0000002", "ISIC_0024306"],
        "Train/seborrheic keratosis": ["ISIC_0000002", "ISIC_0000003"],
        "Test/nevus": ["ISIC_0000001", "ISIC_0024307"],
    }
    root = write_isic9(tmp_path / "data", files)
    (root / ISIC9 / "Test" / "melanoma").mkdir()
    options = ("data=isic9", f"data.root={root}", "near_duplicates=false")
    bare = audit(*options)
    assert bare["missing_lesion"]["severity"] == "problem"
    assert bare["missing_mask"]["severity"] == "note"
    write_ham_metadata(root / "HAM10000_metadata.csv", {"ISIC_0024306": "HAM_1", "ISIC_0024307": "HAM_1"})
    archive = {"isic_id": ["ISIC_0000002", "ISIC_0000003"], "diagnosis_3": ["Melanoma in situ"] * 2}
    pd.DataFrame(archive).to_csv(root / "isic_archive_metadata.csv", index=False)
    found = audit(*options)
    ids = {kind: finding["image_ids"] for kind, finding in found.items()}
    assert ids["conflicting_diagnosis"] == ["ISIC_0000002"]
    assert ids["empty_class_folder"] == ["test/melanoma"]
    assert ids["id_on_both_sides"] == ["ISIC_0000001"]
    assert ids["lesion_on_both_sides"] == ["ISIC_0024307"]
    assert ids["published_diagnosis_differs"] == ["ISIC_0000003", "ISIC_0024306"]
    assert "2 of the 2 images under 'seborrheic keratosis' are published as melanoma" in {
        finding["text"] for finding in found.values()
    }


def command(*overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "skinseg.audit", *overrides],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_exit_codes_and_messages(write_ham: WriteHam, tmp_path: Path) -> None:
    root = write_ham(4)
    disc(SIZE, (0, 0, 32, 40)).save(mask_of(root, FIRST))
    done = command(f"data.root={root}", cwd=tmp_path)
    assert (done.returncode, "USABLE WITH CARE" in done.stdout) == (0, True), done.stderr
    failed = command(f"data.root={root}", "fail_on=caution", cwd=tmp_path)
    assert (failed.returncode, failed.stderr) == (1, "fail_on=caution: a caution was found.\n")
    typo = command(f"data.rot={root}", cwd=tmp_path)
    assert typo.returncode == 2
    assert "did you mean data.root?" in typo.stderr
    assert "Traceback" not in typo.stderr
    absent = command(f"data.root={tmp_path / 'absent'}", cwd=tmp_path)
    assert absent.returncode == 2
    assert absent.stderr.startswith("No HAM10000 here")


@pytest.mark.parametrize(
    "path", sorted((config_dir() / "data").glob("[!b]*.yaml")), ids=lambda path: path.stem
)
def test_config_of_each_data_set(path: Path) -> None:
    check(plain(compose([*chosen(path.stem), "run_dir=."], "audit")), AuditConfig)


@pytest.mark.slow
@pytest.mark.realdata
def test_facts_of_the_complete_ham10000(real_data: Path, audit: Audit, tmp_path: Path) -> None:
    """Rebuilds the tree from the complete metadata with tiny images."""
    root = tmp_path / "ham10000"
    for folder in ("images", "HAM10000_segmentations_lesion_tschandl"):
        (root / folder).mkdir(parents=True)
    shutil.copy(real_data.parent / "facts" / "HAM10000_metadata_full.csv", root / "HAM10000_metadata.csv")
    mask = write_mask(tmp_path / "mask.png", size=(8, 8))
    for number, image_id in enumerate(pd.read_csv(root / "HAM10000_metadata.csv")["image_id"]):
        Image.new("RGB", (8, 8), (number % 250, number // 250, 100)).save(
            root / "images" / f"{image_id}.jpg", quality=100
        )
        os.link(mask, mask_of(root, image_id))
    audit(f"data.root={root}", "near_duplicates=false")
    facts = json.loads((tmp_path / "audit" / "audit.json").read_text())["facts"]
    assert facts["totals"]["images"] == 10015
    assert facts["totals"]["lesion_ids"] == 7470
    assert facts["diagnosis"] == {
        "nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.realdata
def test_facts_of_the_9_class_set(real_data: Path, audit: Audit, tmp_path: Path) -> None:
    facts = real_data.parent / "facts"
    metadata = [facts / "HAM10000_metadata_full.csv", facts / "isic_archive_metadata.csv"]
    found = audit(
        "data=isic9", f"data.root={real_data}", f"data.reader.metadata=[{','.join(map(str, metadata))}]"
    )
    totals = json.loads((tmp_path / "audit" / "audit.json").read_text())["facts"]["totals"]
    assert (totals["files"], totals["images"], totals["images_of_ham10000"]) == (2357, 2202, 1437)
    counts = {kind: len(finding["image_ids"]) for kind, finding in found.items()}  # type: ignore[arg-type]
    assert counts["conflicting_diagnosis"] == 155
    assert counts["id_on_both_sides"] == 18
    assert counts["lesion_on_both_sides"] == 26
    assert counts["missing_mask"] == 496
    assert "80 of the 80 images under 'seborrheic keratosis' are published as melanoma" in {
        finding["text"] for finding in found.values()
    }
    assert found["full_mask"]["image_ids"] == ["ISIC_0026042"]
