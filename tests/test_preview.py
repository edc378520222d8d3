"""The contact sheet: what it shows is what training sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import WriteHam, chosen
from PIL import Image

from skinseg.build import parts
from skinseg.config.check import check
from skinseg.config.compose import compose, config_dir, plain
from skinseg.errors import SkinsegError
from skinseg.pictures import MARGIN, TRUTH_COLOUR, outlined
from skinseg.preview import PreviewConfig, run
from skinseg.recipes.preview import _WIDTH

SIZE = "data.image_size=[96,128]"


def sheet(folder: Path, *overrides: str) -> np.ndarray:
    return np.asarray(Image.open(run(compose([f"run_dir={folder}", SIZE, *overrides], "preview"))))


def width_of(columns: int) -> int:
    return MARGIN + columns * (_WIDTH + MARGIN)


def tile(picture: np.ndarray, column: int) -> np.ndarray:
    """The tile of the first row, without its caption; photograph and input have the same proportions."""
    rows = np.flatnonzero((picture[:, MARGIN : MARGIN + _WIDTH] < 250).all(axis=2).mean(axis=1) > 0.9)
    top = int(rows[0])
    left = MARGIN + column * (_WIDTH + MARGIN)
    return picture[top : top + _WIDTH * 96 // 128, left : left + _WIDTH]


@pytest.mark.parametrize("augment", ["light", "strong_device"])
def test_shows_what_training_sees(augment: str, write_ham: WriteHam, tmp_path: Path) -> None:
    root = write_ham(12, size=(128, 96))
    overrides = [f"data.root={root}", f"augment={augment}", "images=1", "draws=3", "seed=3"]
    picture = sheet(tmp_path, *overrides)
    config = plain(compose([f"run_dir={tmp_path}", SIZE, *overrides], "preview"))
    data = parts.datamodule(config)
    dataset = data.dataset("train")
    (row,) = np.random.default_rng(3).choice(len(dataset), 1, replace=False)
    later = sheet(tmp_path, *overrides, "epoch=6")
    for column in range(3):
        for first, shown in ((0, picture), (5, later)):
            sample = dataset[first + column, int(row)]
            if augment == "strong_device":
                images, masks = data.augment(
                    sample["image"][None], sample["mask"][None], rows=[int(row)], epoch=first + column, seed=3
                )
                sample["image"], sample["mask"] = images[0], masks[0]
            image, mask = sample["image"].numpy().transpose(1, 2, 0), sample["mask"].numpy()[0] > 0
            expected = np.asarray(outlined(image, {TRUTH_COLOUR: mask}, _WIDTH))
            assert np.array_equal(tile(shown, 2 + column), expected)
    assert not np.array_equal(tile(picture, 2), tile(picture, 3)), "each epoch draws anew"


@pytest.mark.parametrize("augment", ["light", "light_device"])
def test_transforms_that_do_nothing(
    augment: str, write_ham: WriteHam, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_ham(12, size=(128, 96))
    names = plain(compose(["run_dir=.", f"augment={augment}"], "preview"))["augment"]["transforms"]
    idle = [f"augment.transforms.{name}.p=0" for name in names]
    picture = sheet(tmp_path, f"data.root={root}", f"augment={augment}", *idle, "images=1", "draws=2")
    assert picture.shape[1] == width_of(4)
    assert np.array_equal(tile(picture, 1), tile(picture, 2))
    assert np.array_equal(tile(picture, 1), tile(picture, 3))
    photograph = tile(picture, 0).astype(int)
    cyan = (photograph[..., 2] - photograph[..., 0] > 60).sum()
    assert cyan > 100, "the photograph is outlined too"
    assert "2 of 2 draws" in capsys.readouterr().out


def test_without_augmentation_the_input_alone(
    write_ham: WriteHam, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = (f"data.root={write_ham(12)}", "augment=none", "images=1", "data.verify=false")
    assert sheet(tmp_path, *overrides).shape[1] == width_of(2)
    assert (tmp_path / "preview.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "training images shown" in printed
    assert "after augmentation" not in printed


def test_lesions_that_augmentation_cuts_off_are_counted(
    write_ham: WriteHam, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = [
        "augment.transforms.affine.p=1",
        "augment.transforms.affine.translate_percent=[2,2]",
        "augment.transforms.affine.border_mode=0",
    ]
    sheet(tmp_path, f"data.root={write_ham(12)}", *away, "images=2", "draws=3")
    assert any(
        "cut the lesion off" in line and "6 of 6 draws" in line
        for line in capsys.readouterr().out.splitlines()
    )


def test_more_images_than_there_are(write_ham: WriteHam, tmp_path: Path) -> None:
    root = write_ham(12)
    few = sheet(tmp_path, f"data.root={root}", "images=2")
    everything = sheet(tmp_path, f"data.root={root}", "images=99")
    split = parts.datamodule(plain(compose([f"data.root={root}", "run_dir=."], "preview"))).split
    row = few.shape[0] - sheet(tmp_path, f"data.root={root}", "images=1").shape[0]
    assert everything.shape[0] - few.shape[0] == row * (len(split.ids("train")) - 2)


@pytest.mark.parametrize("wrong", ["images=0: expected 1", "draws=0: expected 1", "epoch=0: expected 1"])
def test_numbers_that_are_too_small(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(SkinsegError, match=wrong):
        sheet(tmp_path, wrong.split(":")[0])


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(SkinsegError, match=r"data\.root"):
        sheet(tmp_path, f"data.root={tmp_path / 'nowhere'}")
    assert not (tmp_path / "preview.png").exists()


@pytest.mark.slow
def test_command_line(write_ham: WriteHam, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "skinseg.preview", f"data.root={write_ham(12)}", "augmnt.p=1"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    assert "did you mean augment?" in refused.stderr
    done = subprocess.run(
        [*command[:-1], "images=2"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(tmp_path / done.stdout.split()[-1]).is_file()


OPTIONS = [
    f"{group}={path.stem}"
    for group in ("data", "preprocess", "augment")
    for path in sorted((config_dir() / group).glob("*.yaml"))
    if not path.stem.startswith("base")
]
OPTIONS += [f"+augment/part={path.stem}" for path in sorted((config_dir() / "augment/part").glob("*.yaml"))]


@pytest.mark.parametrize("option", OPTIONS)
def test_config_of_each_option(option: str) -> None:
    place = chosen("folder") if option == "data=folder" else [option]
    check(plain(compose([*place, "run_dir=."], "preview")), PreviewConfig)
