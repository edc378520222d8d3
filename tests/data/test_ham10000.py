from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import WriteHam
from PIL import Image

from skinseg.data.catalog import Catalog, join_groups
from skinseg.data.datamodule import LesionDataModule
from skinseg.data.dataset import LesionDataset
from skinseg.data.problems import PROBLEMS, Problems
from skinseg.data.readers.ham10000 import read_ham10000
from skinseg.data.readers.metadata import duplicate_pairs, group_pairs
from skinseg.errors import SkinsegError

FIRST = "ISIC_9000000"


def read(root: Path, **policy: str) -> Catalog:
    return read_ham10000(root, Problems(policy))  # type: ignore[arg-type]


def mask_of(root: Path, image_id: str = FIRST) -> Path:
    return root / "HAM10000_segmentations_lesion_tschandl" / f"{image_id}_segmentation.png"


def image_of(root: Path) -> Path:
    return root / "HAM10000_images_part_1" / f"{FIRST}.jpg"


def test_kaggle_layout(write_ham: WriteHam) -> None:
    catalog = read(write_ham(12))
    table = catalog.table
    assert len(catalog) == 24
    assert table["group"].nunique() == 12
    assert set(table["dataset"]) == {"ham10000"}
    assert (table["width"] == 40).all()
    assert (table["height"] == 32).all()
    assert all(Path(path).is_file() for path in [*table["image"], *table["mask"]])
    assert table["age"].isna().sum() == 16, "an age of 0 is unknown, as an empty one"
    assert catalog.record()["dropped"] == {}


def test_one_images_folder(write_ham: WriteHam) -> None:
    assert len(read(write_ham(3, flat=True))) == 6


def test_folder_above(write_ham: WriteHam, tmp_path: Path) -> None:
    write_ham(3)
    (tmp_path / "another").mkdir()
    assert len(read(tmp_path)) == 6


def test_masks_beside_the_folder_of_the_images(write_ham: WriteHam, tmp_path: Path) -> None:
    root = write_ham(3)
    (root / "HAM10000_segmentations_lesion_tschandl").rename(
        tmp_path / "HAM10000_segmentations_lesion_tschandl"
    )
    assert read(tmp_path).table["mask"].notna().all()


MASKS = "HAM10000_segmentations_lesion_tschandl"


def on_kaggle(
    write_ham: WriteHam, tmp_path: Path, masks: str = f"ham10000-lesion-segmentations/{MASKS}/{MASKS}"
) -> Path:
    """Lays a data set out as Kaggle mounts two, and returns the folder of both."""
    folder = tmp_path / "input"
    root = write_ham(3, root=folder / "skin-cancer-mnist-ham10000")
    (folder / masks).parent.mkdir(parents=True, exist_ok=True)
    (root / MASKS).rename(folder / masks)
    return folder


@pytest.mark.parametrize(
    "masks",
    [
        f"ham10000-lesion-segmentations/{MASKS}/{MASKS}",
        f"a/b/c/{MASKS.upper()}",
        f"{MASKS}/png",
        "ham10000-lesion-segmentations/masks",
    ],
)
def test_masks_anywhere_below_the_root(write_ham: WriteHam, tmp_path: Path, masks: str) -> None:
    folder = on_kaggle(write_ham, tmp_path, masks)
    table = read(folder).table
    assert table["mask"].map(lambda path: Path(path).parent == folder / masks).all()
    assert set(table["mask_source"]) == {"ham10000"}


def test_the_data_set_anywhere_below_the_root(write_ham: WriteHam, tmp_path: Path) -> None:
    folder = on_kaggle(write_ham, tmp_path)
    (tmp_path / "datasets" / "somebody").mkdir(parents=True)
    folder.rename(tmp_path / "datasets" / "somebody" / "input")
    (tmp_path / "a").mkdir()
    shutil.copy(next(tmp_path.rglob("HAM10000_metadata.csv")), tmp_path / "a" / "another.csv")
    assert len(read(tmp_path)) == 6


def test_masks_of_a_named_folder(
    write_ham: WriteHam, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = on_kaggle(write_ham, tmp_path, "elsewhere/truth")
    root = folder / "skin-cancer-mnist-ham10000"

    def catalog(masks: Path, root: Path = root, **more: object) -> Catalog:
        options = {"image_size": (32, 32), "verify": False, "masks": str(masks), **more}
        return LesionDataModule(reader=read_ham10000, root=str(root), **options).catalog  # type: ignore[arg-type]

    with caplog.at_level(logging.INFO):
        table = catalog(folder / "elsewhere").table
    assert table["mask"].notna().all()
    assert set(table["mask_source"]) == {"own"}
    assert "masks of 6 of the 6 images" in caplog.text
    # They come before others, and the others fill what they lack.
    shutil.copytree(folder / "elsewhere/truth", root / MASKS)
    for number in range(5):
        (folder / "elsewhere/truth" / f"ISIC_900000{number}_segmentation.png").unlink()
    assert catalog(folder / "elsewhere").table["mask_source"].tolist() == ["ham10000"] * 5 + ["own"]
    (folder / "elsewhere/truth").rename(folder / "elsewhere" / MASKS)
    assert set(catalog(folder / "elsewhere").table["mask_source"]) == {"ham10000"}
    (folder / "elsewhere" / MASKS / "ISIC_9000005_segmentation.png").rename(folder / "elsewhere" / "x.png")
    with pytest.raises(SkinsegError, match=r"data\.masks=.*none of its masks is of one of the 6 images"):
        catalog(folder / "elsewhere")
    for absent in (folder / "absent", root / "HAM10000_images_part_1"):
        with pytest.raises(SkinsegError, match=rf"^data\.masks={absent}"):
            catalog(absent)


@pytest.mark.parametrize(
    "place", ["predictions", "unet_output", "outputs/evaluate/1/masks", "evaluated/masks"]
)
def test_masks_that_a_network_drew_are_no_truth(write_ham: WriteHam, place: str) -> None:
    """Not even of an image that has no other mask, wherever the true ones lie."""
    root = write_ham(3)
    for masks in (root / MASKS, root / "masks"):
        if not masks.is_dir():
            (root / MASKS).rename(masks)
        shutil.rmtree(root / place, ignore_errors=True)
        shutil.copytree(masks, root / place)
        if place == "evaluated/masks":
            (root / "evaluated" / "evaluation.json").touch()
        mask = masks / f"{FIRST}_segmentation.png"
        other = masks / "ISIC_9000002_segmentation.png"
        mask.rename(root / "aside.png")
        shutil.copy(mask_of_another(masks), root / place / other.name)
        with pytest.raises(SkinsegError, match=r"(?s)1 image has no mask.*If so: data\.masks=") as caught:
            read(root)
        assert str(root / place) in str(caught.value)
        (root / "aside.png").rename(mask)
        assert all(str(path).startswith(f"{masks}/") for path in read(root).table["mask"])


def mask_of_another(masks: Path) -> Path:
    """A mask of other pixels than that of ISIC_9000002."""
    return masks / "ISIC_9000004_segmentation.png"


def test_masks_beside_the_data_set_are_taken_by_the_name_of_their_folder_alone(
    write_ham: WriteHam, tmp_path: Path
) -> None:
    folder = on_kaggle(write_ham, tmp_path, "masks")
    with pytest.raises(
        SkinsegError, match=rf"6 images have no mask(?s:.*){folder / 'masks'} holds masks of 6"
    ):
        read(folder)


def test_a_folder_beside_fills_gaps_and_changes_nothing(write_ham: WriteHam, tmp_path: Path) -> None:
    """Another copy of the data set, at another size, may lie beside."""
    root = write_ham(3)
    other = write_ham(3, root=tmp_path / "zoom", size=(80, 64))
    mask_of(root).unlink()
    table = read(tmp_path).table.set_index("image_id")
    assert Path(table.loc[FIRST, "mask"]).is_relative_to(other)
    assert all(Path(path).is_relative_to(root) for path in table["mask"].drop(FIRST))


@pytest.mark.parametrize("names", [("one", "two"), (MASKS, "more"), (MASKS, f"again/{MASKS}")])
def test_two_masks_of_an_image_that_differ(write_ham: WriteHam, names: tuple[str, str]) -> None:
    root = write_ham(3)
    (root / MASKS).rename(root / "first")
    for name in names:
        shutil.copytree(root / "first", root / name)
    shutil.rmtree(root / "first")
    assert len(read(root)) == 6
    shutil.copy(mask_of_another(root / names[0]), root / names[1] / "ISIC_9000002_segmentation.png")
    with pytest.raises(SkinsegError, match=r"ISIC_9000002 is there twice with different content"):
        read(root)


def test_metadata_with_dataset_column(write_ham: WriteHam) -> None:
    root = write_ham(3)
    path = root / "HAM10000_metadata.csv"
    pd.read_csv(path).assign(dataset="vidir_modern").to_csv(path, index=False)
    assert set(read(root).table["source"]) == {"vidir_modern"}


def test_metadata_elsewhere(write_ham: WriteHam, tmp_path: Path) -> None:
    root = write_ham(3)
    elsewhere = tmp_path / "metadata.csv"
    (root / "HAM10000_metadata.csv").rename(elsewhere)
    assert len(read_ham10000(root, Problems(), metadata=str(elsewhere))) == 6
    with pytest.raises(SkinsegError, match=r"data\.reader\.metadata=.*no such file"):
        read_ham10000(root, Problems(), metadata=str(tmp_path / "absent.csv"))


def test_junk_is_skipped(write_ham: WriteHam) -> None:
    root = write_ham(3)
    junk = root / "__MACOSX" / "HAM10000_segmentations_lesion_tschandl"
    junk.mkdir(parents=True)
    (junk / f"._{FIRST}_segmentation.png").write_bytes(b"junk")
    (root / "HAM10000_images_part_1" / "._ISIC_9000000.jpg").write_bytes(b"junk")
    (root / "hmnist_8_8_L.csv").write_text("a,b")
    assert len(read(root)) == 6


def test_second_copy_in_lower_case_folders(write_ham: WriteHam) -> None:
    root = write_ham(3)
    shutil.copytree(root / "HAM10000_images_part_1", root / "copy" / "ham10000_images_part_1")
    assert len(read(root)) == 6
    (root / "copy" / "ham10000_images_part_1" / f"{FIRST}.jpg").write_bytes(b"other")
    with pytest.raises(SkinsegError, match="twice with different content"):
        read(root)


@pytest.mark.parametrize("mode", ["P", "1"])
def test_palette_and_one_bit_masks(write_ham: WriteHam, mode: str) -> None:
    root = write_ham(3)
    mask = np.asarray(Image.open(mask_of(root)))
    if mode == "P":
        picture = Image.fromarray((mask > 0).astype(np.uint8), "P")
        picture.putpalette([0, 0, 0, 255, 255, 255])
    else:
        picture = Image.fromarray(mask).convert("1")
    picture.save(mask_of(root))
    assert len(read(root)) == 6


def corrupt_masks() -> dict[str, np.ndarray]:
    disc = np.zeros((32, 40), np.uint8)
    disc[10:20, 10:20] = 255
    return {
        "16-bit": disc.astype(np.uint16) * 257,
        "RGB": np.repeat(disc[..., None], 3, axis=2),
        "0/1": disc // 255,
        "grey edge": np.where(disc > 0, 200, 0).astype(np.uint8),
    }


@pytest.mark.parametrize("form", corrupt_masks())
def test_mask_format(write_ham: WriteHam, form: str) -> None:
    root = write_ham(3)
    Image.fromarray(corrupt_masks()[form]).save(mask_of(root))
    with pytest.raises(SkinsegError, match=r"1 mask is not an 8-bit.*data\.on_mask_format=drop") as caught:
        read(root)
    assert str(mask_of(root)) in str(caught.value)
    catalog = read(root, mask_format="drop")
    assert len(catalog) == 5
    assert catalog.dropped == {"mask_format": [FIRST]}


def test_mask_of_another_size(write_ham: WriteHam) -> None:
    root = write_ham(3)
    Image.new("L", (20, 20)).save(mask_of(root))
    with pytest.raises(SkinsegError, match="20x20, its image is 40x32"):
        read(root)
    assert read(root, mask_size="drop").dropped == {"mask_size": [FIRST]}
    with pytest.raises(SkinsegError, match="20x20, its image is 40x32"):
        read_ham10000(root, Problems(), verify="headers")
    assert (read_ham10000(root, Problems(), verify=False).table["width"] == 0).all(), "nothing was opened"


def test_mask_of_the_same_proportions_is_resized(write_ham: WriteHam) -> None:
    root = write_ham(3)
    small = np.zeros((16, 20), np.uint8)
    small[4:10, 5:15] = 255
    Image.fromarray(small).save(mask_of(root))
    for verify in (True, "headers"):
        catalog = read_ham10000(root, Problems(), verify=verify)  # type: ignore[arg-type]
        assert catalog.notes["mask_resized"] == [FIRST]
    rows = catalog.table[catalog.table["image_id"] == FIRST]
    truth = LesionDataset(rows, (32, 40), with_truth=True)[0]["truth"].numpy()
    assert truth.shape == (32, 40)
    assert truth[8:20, 10:30].all()
    assert truth.sum() == 12 * 20


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty file"), (b"just text", "not an image"), (None, "truncated")],
)
def test_unreadable_image(write_ham: WriteHam, content: bytes | None, reason: str) -> None:
    root = write_ham(3, size=(80, 60))
    whole = image_of(root).read_bytes()
    image_of(root).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(SkinsegError, match=f"1 file cannot be decoded.*\n.*{FIRST}.*{reason}"):
        read(root)
    assert read(root, unreadable="drop").dropped == {"unreadable": [FIRST]}


def test_missing_files_are_listed_together(write_ham: WriteHam) -> None:
    root = write_ham(12)
    image_of(root).unlink()
    mask_of(root, "ISIC_9000002").unlink()
    path = root / "HAM10000_metadata.csv"
    metadata = pd.read_csv(path)
    metadata[metadata["image_id"] != "ISIC_9000004"].to_csv(path, index=False)
    with pytest.raises(SkinsegError) as caught:
        read(root)
    message = str(caught.value)
    for kind, image_id in {
        "missing_image": FIRST,
        "missing_mask": "ISIC_9000002",
        "missing_metadata": "ISIC_9000004",
    }.items():
        assert re.search(rf"1 {PROBLEMS[kind][0]}; data.on_{kind}=drop.*\n.*{image_id}", message)
    catalog = read(root, missing_image="drop", missing_mask="drop", missing_metadata="drop")
    assert len(catalog) == 21
    assert catalog.record()["dropped"]["missing_mask"] == {"count": 1, "image_ids": ["ISIC_9000002"]}  # type: ignore[index]


def test_long_lists_are_cut(write_ham: WriteHam) -> None:
    root = write_ham(12)
    shutil.rmtree(root / "HAM10000_images_part_2")
    with pytest.raises(SkinsegError, match="12 rows of the metadata") as caught:
        read(root)
    assert "and 7 more" in str(caught.value)


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(SkinsegError, match="no such folder") as caught:
        read(tmp_path / "absent")
    for hint in (
        str(tmp_path / "absent"),
        "kmader/skin-cancer-mnist-ham10000",
        "DVN/DBW86T",
        "data=synthetic",
    ):
        assert hint in str(caught.value)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SkinsegError, match="is a file; expected the folder"):
        read(file)


def test_all_images_dropped(write_ham: WriteHam) -> None:
    root = write_ham(2)
    shutil.rmtree(mask_of(root).parent)
    with pytest.raises(SkinsegError, match=r"holds no image.*'missing_mask': 4"):
        read(root, missing_mask="drop")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: pd.concat([rows, rows.head(1)]),
            "1 image id is listed more than once, e.g. ISIC_9000000",
        ),
        (lambda rows: rows.drop(columns="dx"), r"lacks the columns \['dx'\]"),
        (lambda rows: rows.assign(dx="melanoma"), r"unknown diagnoses \['melanoma'\]"),
        (lambda rows: rows.assign(lesion_id=None), "have no lesion_id"),
    ],
)
def test_bad_metadata(write_ham: WriteHam, change, message: str) -> None:  # type: ignore[no-untyped-def]
    root = write_ham(3)
    path = root / "HAM10000_metadata.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(SkinsegError, match=message):
        read(root)


def test_unknown_policy() -> None:
    with pytest.raises(SkinsegError, match=r"data\.on_unreadable: found 'ignore', expected one of"):
        Problems({"unreadable": "ignore"})  # type: ignore[dict-item]


def test_join_groups() -> None:
    groups = join_groups("abcd", [("c", "b"), ("d", "c"), ("a", "absent")])
    assert groups == ["a", "b", "b", "b"]


def test_published_duplicates_are_joined(write_ham: WriteHam) -> None:
    root = write_ham(2)
    pairs = duplicate_pairs()
    assert len(pairs) == 18
    path = root / "HAM10000_metadata.csv"
    rows = pd.read_csv(path)
    for old, new in zip((FIRST, "ISIC_9000002"), pairs[0], strict=True):
        mask_of(root, old).rename(mask_of(root, new))
        (root / "HAM10000_images_part_1" / f"{old}.jpg").rename(
            root / "HAM10000_images_part_1" / f"{new}.jpg"
        )
        rows["image_id"] = rows["image_id"].replace(old, new)
    rows.to_csv(path, index=False)
    assert read(root).table["group"].nunique() == 1


@pytest.mark.realdata
def test_facts_of_the_full_metadata(real_data: Path) -> None:
    facts = real_data.parent / "facts" / "HAM10000_metadata_full.csv"
    if not facts.is_file():
        pytest.skip(f"{facts} is not there")
    rows = pd.read_csv(facts)
    assert rows["lesion_id"].nunique() == 7470
    pairs = group_pairs(dict(zip(rows["image_id"], rows["lesion_id"], strict=True)))
    assert len(set(join_groups(rows["lesion_id"], pairs))) == 7452


@pytest.mark.realdata
def test_real_folder(real_data: Path) -> None:
    catalog = read_ham10000(real_data, Problems(), verify="headers")
    assert len(catalog) == 8488
    assert catalog.table["group"].nunique() == 6313
    assert catalog.dropped == {}


@pytest.mark.realdata
def test_real_native_size_sample(real_data: Path) -> None:
    metadata = real_data.parent / "facts" / "HAM10000_metadata_full.csv"
    catalog = read_ham10000(
        real_data / "ham10000_fullres", Problems({"missing_image": "drop"}), metadata=str(metadata)
    )
    assert len(catalog) == 64
    assert set(catalog.table["width"]) == {600}


@pytest.mark.realdata
def test_real_folder_of_several_data_sets(real_data: Path) -> None:
    """Masks of the same images at another size, and of others, lie beside."""
    table = read_ham10000(real_data, Problems(), verify=False).table
    assert {Path(path).parent for path in table["mask"]} == {real_data / "ham10000" / MASKS}
