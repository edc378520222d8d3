"""Catalogs put together, and large ones."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from skinseg.data.catalog import ANNOTATION_COLUMNS, COLUMNS, Catalog, combine, name_groups
from skinseg.data.readers.combined import read_combined
from skinseg.data.splits.whole import shared, whole_test_subset
from skinseg.errors import SkinsegError


def catalog(
    name: str, groups: dict[str, str], *, masked: str = "", notes: dict[str, list[str]] | None = None
) -> Catalog:
    """A catalog of image ids with their lesions; `masked` names the ids with a mask."""
    rows = [{"image_id": image, "group": group} for image, group in groups.items()]
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS)).assign(dataset=name)
    has = table["image_id"].isin(list(masked))
    table["mask"] = (name + "/" + table["image_id"]).where(has)
    table["mask_source"] = pd.Series(name, index=table.index).where(has)
    masks = table.loc[has, ["image_id", "mask", "mask_source"]].assign(annotator=None)
    return Catalog(table, annotations=masks[list(ANNOTATION_COLUMNS)], notes=notes or {})


def test_one_row_an_id_and_lesions_grouped_across() -> None:
    first = catalog("one", {"a": "L1", "b": "L2", "c": "L3"}, masked="ac")
    second = catalog(
        "two", {"b": "M1", "d": "M1", "a": "M2", "e": "M3"}, masked="bd", notes={"same_file": ["e"]}
    )
    both = combine([first, second])
    table = both.table.set_index("image_id")
    assert list(table.index) == list("abcde")
    assert table["dataset"].to_dict() == {"a": "one", "b": "two", "c": "one", "d": "two", "e": "two"}, (
        "masks win"
    )
    assert table.loc["b", "group"] == table.loc["d", "group"]
    assert table["group"].nunique() == 4
    assert both.notes == {"in_several": ["a", "b"], "same_file": ["e"]}
    assert sorted(both.annotations["mask"]) == ["one/a", "one/c", "two/b", "two/d"]


def test_dropped_in_one_but_good_in_the_other() -> None:
    first = replace(catalog("one", {"a": "L1"}), dropped={"missing_mask": ["b", "c"]})
    assert combine([first, catalog("two", {"b": "M1"})]).dropped == {"missing_mask": ["c"]}


def test_an_image_is_not_taken_for_a_lesion_of_its_name() -> None:
    """Neither in one data set nor across several; but an id of a lesion is the same lesion everywhere."""
    named = catalog("one", {"a": "L1", "b": "c", "x": "c"})
    alone = catalog("two", {"c": "c", "d": "L1", "e": "e"})
    alone = replace(alone, table=alone.table.assign(group_source=["image", "two", "image"]))
    for order in ([named, alone], [alone, named]):
        group = combine(order).table.set_index("image_id")["group"]
        assert group["b"] == group["x"] == "c"
        assert group["c"] != "c"
        assert group["a"] == group["d"] == "L1"
        assert group["e"] == "e", "names that are like no other stay"
    assert shared(named, alone)[1] == ["d"]


def test_groups_of_images_with_and_without_a_lesion() -> None:
    assert name_groups(["a", "b"], ["L", None]) == ["L", "b"]
    assert name_groups(["1", "2", "2"], [None, "1", "1"]) == ["image 1", "1", "1"]
    names = name_groups(["1", "image 1", "2", "3"], [float("nan"), None, "1", "image 1"])
    assert len(set(names)) == 4
    assert names[2:] == ["1", "image 1"], "lesions keep their names"


def test_lesions_joined_through_a_third_image() -> None:
    first = catalog("one", {"a": "L1", "b": "L1"})
    second = catalog("two", {"b": "M1", "c": "M1"})
    third = catalog("three", {"c": "N1", "d": "N1"})
    assert combine([first, second, third]).table["group"].nunique() == 1


def test_what_two_catalogs_share() -> None:
    train = catalog("train", {"a": "L1", "b": "L2", "c": "L3"})
    test = catalog("test", {"a": "M1", "d": "M1", "e": "L2", "f": "M4"}, masked="adef")
    by_id, by_lesion = shared(train, test)
    assert by_id == ["a"]
    assert by_lesion == ["a", "d", "e"], "d by way of a, e by its lesion's name"
    split = whole_test_subset(test, train=train, overlap="exclude")
    assert split.ids("test") == ["f"]
    assert split.left_out == {"in_training_data": ["a"], "lesion_in_training_data": ["d", "e"]}
    with pytest.raises(
        SkinsegError, match=r"1 image of the test data is in the training data, 2 more show a lesion"
    ):
        whole_test_subset(test, train=train, overlap="refuse")


def test_nothing_left_to_test_on() -> None:
    train = catalog("train", {"a": "L1"})
    with pytest.raises(SkinsegError, match=r"leaves nothing to score: of its 2 images 1 has a mask"):
        whole_test_subset(catalog("test", {"a": "L1", "b": "L2"}, masked="a"), train=train, overlap="exclude")
    with pytest.raises(SkinsegError, match=r"skinseg\.download"):
        whole_test_subset(catalog("test", {"b": "L2"}), train=train, overlap="exclude")


def test_pseudo_masks_are_not_tested_on() -> None:
    test = catalog("pseudo", {"b": "L2", "c": "L3"}, masked="b")
    with pytest.raises(SkinsegError, match="0 have a mask"):
        whole_test_subset(test, train=catalog("train", {"a": "L1"}), overlap="exclude")


def test_fewer_than_two_readers(tmp_path: Path) -> None:
    with pytest.raises(SkinsegError, match=r"expected two data sets or more"):
        read_combined(tmp_path, None, readers={"one": lambda *_, **__: None})  # type: ignore[arg-type, dict-item, return-value]


@pytest.mark.slow
def test_a_hundred_thousand_images(tmp_path: Path) -> None:
    """Lists and catalogs 100,000 images in a process of its own, whose memory can be told."""
    code = f"""
    import time
    from pathlib import Path
    import skinseg.data.splits
    from skinseg.data.problems import Problems
    from skinseg.data.readers.isic9 import FOLDER, read_isic9
    root = Path({str(tmp_path)!r})
    classes = root / FOLDER / "Train" / "nevus"
    masks = root / "ISIC2018_Task1_Training_GroundTruth"
    classes.mkdir(parents=True); masks.mkdir()
    for number in range(100_000):
        (classes / f"ISIC_{{4_000_000 + number}}.jpg").touch()
        (masks / f"ISIC_{{4_000_000 + number}}_segmentation.png").touch()
    def memory():
        # The peak that getrusage gives would include that of the process that started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    started = time.process_time()
    catalog = read_isic9(root, Problems(), verify=False)
    print(len(catalog), time.process_time() - started, memory())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    images, seconds, megabytes = map(float, out.stdout.split())
    assert images == 100_000
    print(f"{seconds:.1f} s, {megabytes:.0f} MB")
    assert megabytes < 500
