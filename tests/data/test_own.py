"""Photographs and masks of one's own: what is found by which names, and what is refused."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, WriteHam, write_image, write_mask
from numpy.typing import NDArray
from PIL import Image

from skinseg import evaluate, split, train
from skinseg.config.compose import compose
from skinseg.data.catalog import Catalog
from skinseg.data.photographs import read_mask
from skinseg.data.problems import Problems
from skinseg.data.readers.ham10000 import read_ham10000
from skinseg.data.readers.own import read_own
from skinseg.errors import SkinsegError


def photographs(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (32, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


def masks(folder: Path, *names: str) -> Path:
    for name in names:
        write_mask(folder / name)
    return folder


def read(images: Path, given: Path | None = None, **more: Any) -> Catalog:
    keep = more.pop("keep", ())
    return read_own(images, Problems(dict.fromkeys(keep, "keep")), mask_folder=given, **more)


def names_of(catalog: Catalog) -> dict[str, str | None]:
    table = catalog.table
    paths = (None if pd.isna(mask) else Path(mask).name for mask in table["mask"])
    return dict(zip(table["image_id"], paths, strict=True))


@pytest.mark.parametrize(
    "behind", ["", "_mask", "_Segmentation", "_segmentation", "_lesion", "_gt", "-mask", "_label", "_SEG"]
)
def test_masks_are_named_as_the_photograph_or_usually(tmp_path: Path, behind: str) -> None:
    images = photographs(tmp_path / "images", "a_1.jpg", "deep/B.PNG", "c.bmp")
    given = masks(tmp_path / "masks", f"a_1{behind}.png", f"b{behind}.png", f"deeper/c{behind}.png")
    assert names_of(read(images, given)) == {
        "a_1": f"a_1{behind}.png", "B": f"b{behind}.png", "c": f"c{behind}.png",
    }  # fmt: skip


def test_names_that_the_user_gives(tmp_path: Path) -> None:
    images = photographs(tmp_path / "images", "a.jpg", "b.jpg")
    given = masks(tmp_path / "masks", "outline of a (1).png", "outline of b (1).png", "a_mask.png")
    found = read(images, given, mask_name="outline of {id} (1)")
    assert names_of(found) == {"a": "outline of a (1).png", "b": "outline of b (1).png"}
    with pytest.raises(SkinsegError, match=r"data\.mask_name=outline: expected a name with \{id\}"):
        read(images, given, mask_name="outline")


def test_files_of_one_name_in_several_folders(tmp_path: Path) -> None:
    images = photographs(tmp_path / "images", "p1/left.jpg", "p1/right.jpg", "p2/left.jpg")
    given = masks(tmp_path / "masks", "p1/left_mask.png", "p1/right_mask.png", "p2/left_mask.png")
    table = read(images, given, group_by="parent").table
    assert table["image_id"].tolist() == ["p1__left", "p1__right", "p2__left"]
    assert [Path(mask).parent.name for mask in table["mask"]] == ["p1", "p1", "p2"]
    assert table["group"].tolist() == ["p1", "p1", "p2"]
    assert set(table["group_source"]) == {"folder"}


def test_masks_among_the_photographs(tmp_path: Path) -> None:
    images = photographs(tmp_path / "all", "a.jpg", "b.jpg")
    masks(images, "a_mask.png", "b_mask.png")
    assert names_of(read(images, images)) == {"a": "a_mask.png", "b": "b_mask.png"}
    inside = photographs(tmp_path / "other", "a.jpg")
    masks(inside / "masks", "a.png")
    assert names_of(read(inside, inside / "masks")) == {"a": "a.png"}


def test_without_masks_all_are_kept(tmp_path: Path) -> None:
    images = photographs(tmp_path / "images", "a.jpg", "b.jpg")
    assert names_of(read(images, keep=["missing_mask"])) == {"a": None, "b": None}
    with pytest.raises(
        SkinsegError, match=r"2 images have no mask.*\n.*data\.masks names no folder"
    ) as refused:
        read(images)
    assert "Masks: data.masks=<folder>" in str(refused.value)


def test_what_does_not_fit_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = photographs(tmp_path / "images", "a.jpg", "b.jpg")
    both = masks(tmp_path / "both", "a.png", "a_mask.png", "b.png")
    with pytest.raises(SkinsegError, match=r"1 photograph has several masks; keep one of each") as refused:
        read(images, both)
    assert f"a: {both / 'a.png'} and {both / 'a_mask.png'}" in str(refused.value)
    extra = masks(tmp_path / "extra", "a.png", "b.png", "c.png")
    assert names_of(read(images, extra)) == {"a": "a.png", "b": "b.png"}
    assert f"1 picture has no photograph of that name: {extra / 'c.png'}" in caplog.text
    other = masks(tmp_path / "other", "x.png")
    with pytest.raises(SkinsegError, match=r"none of its 1 picture is called like one of the 2 photographs"):
        read(images, other)
    half = masks(tmp_path / "half", "a.png")
    with pytest.raises(SkinsegError, match=rf"1 image has no mask.*\n.*b\.jpg has no mask in {half}"):
        read(images, half)


def test_folders_that_are_none(tmp_path: Path) -> None:
    images = photographs(tmp_path / "images", "a.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SkinsegError, match=r"data\.images=.*empty holds no photograph"):
        read(tmp_path / "empty")
    with pytest.raises(SkinsegError, match=r"data\.images=.*absent is not there"):
        read(tmp_path / "absent")
    with pytest.raises(SkinsegError, match=r"data\.masks=.*a\.jpg is a file"):
        read(images, images / "a.jpg")
    with pytest.raises(SkinsegError, match=r"data\.masks=.*empty holds no picture"):
        read(images, tmp_path / "empty")
    with pytest.raises(SkinsegError, match=r"data\.images and data\.masks are both .*images"):
        read(images, images)
    photographs(images, "a.png")
    with pytest.raises(SkinsegError, match="1 photograph is there as several files"):
        read(images)


class TestOtherForms:
    """The same lesion in other values, and what cannot be told."""

    @pytest.fixture
    def lesion(self) -> NDArray[np.bool_]:
        lesion = np.zeros((32, 40), dtype=bool)
        lesion[8:20, 10:30] = True
        return lesion

    @pytest.fixture
    def images(self, tmp_path: Path) -> Path:
        return photographs(tmp_path / "images", "a.jpg")

    @pytest.mark.parametrize(
        ("form", "rule"),
        [
            ("0 and 1", {"lesion_value": 1}),
            ("class", {"lesion_value": 3}),
            ("palette", {"lesion_value": 3}),
            ("colour", {"lesion_value": [0, 128, 255]}),
            ("grey RGB", {"lesion_value": 255}),
            ("inverted", {"lesion_value": 0}),
            ("16 bit", {"lesion_value": 65535}),
            ("JPEG", {"mask_threshold": 128}),
        ],
    )
    def test_told(
        self, lesion: NDArray[np.bool_], images: Path, tmp_path: Path, form: str, rule: dict[str, Any]
    ) -> None:
        classes = np.where(lesion, 3, 2).astype(np.uint8)
        picture = {
            "0 and 1": Image.fromarray(lesion.astype(np.uint8)),
            "class": Image.fromarray(classes),
            "palette": Image.fromarray(classes, "P"),
            "colour": Image.fromarray(
                np.where(lesion[..., None], [0, 128, 255], [255, 0, 0]).astype(np.uint8)
            ),
            "grey RGB": Image.fromarray(np.repeat(lesion[..., None] * np.uint8(255), 3, axis=2)),
            "inverted": Image.fromarray(~lesion * np.uint8(255)),
            "16 bit": Image.fromarray(lesion * np.uint16(65535)),
            "JPEG": Image.fromarray(lesion * np.uint8(255)),
        }[form]
        if form == "palette":
            picture.putpalette([9, 9, 9] * 4)
        path = tmp_path / f"masks/a.{'jpg' if form == 'JPEG' else 'png'}"
        path.parent.mkdir()
        picture.save(path)
        if form != "inverted":
            said = r"not an 8-bit grey(.|\n)*data\.lesion_value=<value> or data\.mask_threshold=128"
            with pytest.raises(SkinsegError, match=said):
                read(images, path.parent)
        for _ in range(2):
            found = read(images, path.parent, cache_dir=str(tmp_path / "cache"), **rule)
        (mask,) = found.table["mask"]
        assert (read_mask(mask) == lesion * np.uint8(255)).all()
        assert [Path(mask)] == list((tmp_path / "cache/masks").iterdir())

    def test_a_file_that_is_no_picture(self, images: Path, tmp_path: Path) -> None:
        """By folders and by a manifest, which may also name what is not there."""
        (tmp_path / "masks").mkdir()
        (tmp_path / "masks/a.png").write_text("no picture")
        cache = {"cache_dir": str(tmp_path / "cache"), "lesion_value": 1}
        with pytest.raises(SkinsegError, match=r"1 file cannot be decoded.*\n.*a\.png: not an image"):
            read(images, tmp_path / "masks", **cache)
        path = tmp_path / "list.csv"
        path.write_text("image,mask\nimages/a.jpg,absent.png\n")
        with pytest.raises(SkinsegError, match=r"1 file cannot be decoded.*\n.*absent\.png: no such file"):
            read(path, **cache)

    def test_an_image_without_a_lesion(self, images: Path, tmp_path: Path) -> None:
        photographs(images, "b.jpg")
        for name, value in (("a", 1), ("b", 0)):
            path = tmp_path / f"masks/{name}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((32, 40), value, np.uint8)).save(path)
        for _ in range(2):
            found = read(images, tmp_path / "masks", cache_dir=str(tmp_path / "cache"), lesion_value=1)
            assert [bool(read_mask(mask).any()) for mask in found.table["mask"]] == [True, False]

    @pytest.mark.parametrize(
        ("rule", "said"),
        [
            (
                {"lesion_value": 7},
                r"data\.lesion_value=7: none of the 1 mask has a lesion by it; found values 0, 255",
            ),
            ({"lesion_value": 1, "mask_threshold": 9}, "both say what the lesion is; leave one out"),
            ({"mask_threshold": 0}, r"data\.mask_threshold=0: expected 1 or more"),
            (
                {"lesion_value": [1, 2]},
                r"data\.lesion_value=\[1, 2\]: expected a number, or red, green and blue",
            ),
        ],
    )
    def test_refused(self, images: Path, tmp_path: Path, rule: dict[str, Any], said: str) -> None:
        masks(tmp_path / "masks", "a.png")
        with pytest.raises(SkinsegError, match=said):
            read(images, tmp_path / "masks", cache_dir=str(tmp_path / "cache"), **rule)

    def test_coloured_masks_need_a_colour(self, images: Path, tmp_path: Path) -> None:
        photographs(tmp_path / "masks", "a.png")
        with pytest.raises(SkinsegError, match=r"coloured; name the lesion's colour: data\.lesion_value="):
            read(images, tmp_path / "masks", cache_dir=str(tmp_path / "cache"), lesion_value=1)


class TestMetadata:
    @pytest.fixture
    def images(self, tmp_path: Path) -> Path:
        return photographs(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg")

    def table(self, folder: Path, text: str) -> str:
        path = folder / "table.csv"
        path.write_text(text)
        return str(path)

    def test_usual_names(self, images: Path, tmp_path: Path) -> None:
        text = "Image;Lesion ID;dx;age\na.jpg;L1;Melanoma;51,5\nB;L1;blue nevus;\nc;unknown;nv;40\n"
        table = read(images, keep=["missing_mask"], metadata=self.table(tmp_path, text)).table
        assert table["group"].tolist() == ["L1", "L1", "c"]
        assert table["group_source"].tolist() == ["metadata", "metadata", "image"]
        assert table["diagnosis_term"].tolist() == ["Melanoma", "blue nevus", "nv"]
        assert table["diagnosis"].fillna("").tolist() == ["mel", "", "nv"]
        assert table["age"].fillna(0).tolist() == [51.5, 0, 40]

    def test_names_of_the_users_own(self, images: Path, tmp_path: Path) -> None:
        path = self.table(tmp_path, "photo,case_no,lesion_id\na,1,x\nb,1,y\nc,2,z\n")
        columns = {"image": "photo", "lesion": "case_no"}
        table = read(images, keep=["missing_mask"], metadata=path, columns=columns).table
        assert table["group"].tolist() == ["1", "1", "2"]

    @pytest.mark.parametrize(
        ("text", "columns", "said"),
        [
            ("photo,lesion\na,1\n", {}, "has no column of images; found photo, lesion"),
            ("image,lesion\na,1\n", {"lesion": "case"}, r"lacks the columns \['case'\]"),
            ("image,lesion\nx,1\n", {}, "none of its 1 row matches any of the 3 images"),
            ("image,lesion\na,1\na,2\nb,1\nc,1\n", {}, "1 image is listed more than once, e.g. a"),
            ("image,lesion\na,1\n", {}, "2 image files are not listed in the metadata"),
            (
                "image\na\n",
                {"patients": "p"},
                "data.columns: unknown patients; expected some of image",
            ),
        ],
    )
    def test_refused(
        self, images: Path, tmp_path: Path, text: str, columns: dict[str, str], said: str
    ) -> None:
        with pytest.raises(SkinsegError, match=said):
            read(images, keep=["missing_mask"], metadata=self.table(tmp_path, text), columns=columns)

    def test_two_that_say_which_lesion(self, images: Path, tmp_path: Path) -> None:
        path = self.table(tmp_path, "image,lesion\na,1\nb,1\nc,1\n")
        with pytest.raises(SkinsegError, match=r"both say which images show one lesion"):
            read(images, keep=["missing_mask"], metadata=path, group_by="parent")
        with pytest.raises(SkinsegError, match=r"data\.group_by=parent: all 3 photographs lie in .*images"):
            read(images, keep=["missing_mask"], group_by="parent")
        with pytest.raises(SkinsegError, match=r"data\.columns names columns of a table"):
            read(images, keep=["missing_mask"], columns={"lesion": "case"})


class TestManifest:
    def manifest(self, folder: Path, text: str) -> Path:
        path = folder / "list.csv"
        path.write_text(text)
        return path

    def test_names_files_wherever_they_lie(self, tmp_path: Path) -> None:
        photographs(tmp_path, "x/a.jpg", "y/deep/b.png")
        masks(tmp_path, "z/of a.png", "z/of b.png")
        text = f"image,mask,lesion\nx/a.jpg,z/of a.png,L\n{tmp_path}/y/deep/b.png,z/of b.png,\n"
        table = read(self.manifest(tmp_path, text)).table
        assert table["image_id"].tolist() == ["a", "b"]
        assert [Path(mask).name for mask in table["mask"]] == ["of a.png", "of b.png"]
        assert table["group"].tolist() == ["L", "b"]
        assert table["group_source"].tolist() == ["manifest", "image"]

    def test_files_of_one_name(self, tmp_path: Path) -> None:
        photographs(tmp_path, "x/a.jpg", "y/a.jpg")
        path = self.manifest(tmp_path, "file\nx/a.jpg\ny/a.jpg\n")
        assert read(path, keep=["missing_mask"]).table["image_id"].tolist() == ["x__a", "y__a"]

    @pytest.mark.parametrize(
        ("text", "more", "said"),
        [
            ("image\nabsent.jpg\nx/a.jpg\n", {}, r"absent\.jpg \(row of .*list\.csv\) is not there"),
            ("image\nx/a.jpg\nx/a.jpg\n", {}, r"1 image is listed more than once"),
            ("mask\nx/a.jpg\n", {}, r"has no column of images; found mask"),
            ("image,mask\n,x/a.jpg\n", {}, r"1 row names no image; fix the file"),
            (
                "image\nx/a.jpg\n",
                {"group_by": "parent"},
                r"is a manifest, .*: leave out data\.group_by=parent",
            ),
        ],
    )
    def test_refused(self, tmp_path: Path, text: str, more: dict[str, Any], said: str) -> None:
        photographs(tmp_path, "x/a.jpg")
        with pytest.raises(SkinsegError, match=said):
            read(self.manifest(tmp_path, text), keep=["missing_mask"], **more)

    def test_of_a_data_set_and_back(self, write_ham: WriteHam, tmp_path: Path) -> None:
        root = write_ham(12)
        where = [f"data.root={root}", f"run_dir={tmp_path / 'split'}", "manifest=true"]
        split.run(compose(where, "split"))
        path = tmp_path / "split/manifest.csv"
        ham = read_ham10000(root, Problems()).table
        again = read(path).table
        for column in ("image_id", "group", "diagnosis", "diagnosis_term", "sex", "site", "licence", "age"):
            assert again[column].fillna("").tolist() == ham[column].fillna("").tolist(), column
        for column in ("image", "mask"):
            assert [Path(p).resolve() for p in again[column]] == [Path(p).resolve() for p in ham[column]]


def test_from_two_folders_to_scores(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In one line, and the checkpoint is evaluated on the folders where they lie later."""
    caplog.set_level(logging.INFO)
    for number in range(20):
        write_image(tmp_path / f"clinic/photo {number}.jpg")
        write_mask(tmp_path / f"drawn/photo {number}_mask.png", shift=number % 5)
    what = ["data=folder", f"data.images={tmp_path}/clinic", f"data.masks={tmp_path}/drawn"]
    what += ["data.mask_threshold=200"]
    train.run(compose([*TINY, *what, f"run_dir={tmp_path / 'run'}"]))
    assert "20 images have no known lesion id; each is taken for a lesion of its own." in caplog.text
    scores = pd.read_csv(tmp_path / "run/scores.csv")
    assert len(scores) == 4
    assert all(re.fullmatch(r"photo \d+", image_id) for image_id in scores["image_id"])
    known = json.loads((tmp_path / "run/data.json").read_text())["catalog"]
    assert known["by_group_source"] == {"image": 20}
    (tmp_path / "clinic").rename(tmp_path / "moved")
    again = [f"ckpt={tmp_path}/run/checkpoints/best.ckpt", "data.num_workers=0", f"run_dir={tmp_path}/again"]
    for number, place in enumerate((f"+data.images={tmp_path}/moved", f"data.root={tmp_path}/moved")):
        evaluate.run(compose([*again[:-1], f"run_dir={tmp_path}/again{number}", place], "evaluate"))
        found = pd.read_csv(tmp_path / f"again{number}/scores.csv")
        assert found["dice"].tolist() == scores["dice"].tolist()


def test_keys_of_ones_own_say_nothing_of_a_published_set(tmp_path: Path) -> None:
    with pytest.raises(SkinsegError, match=r"data\.metadata: of use for data\.images=<folder> alone"):
        train.run(compose([*TINY, "data.root=.", "+data.metadata=x.csv", f"run_dir={tmp_path}"]))
