"""The contact sheet: what it shows is what training sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import WriteHam
from PIL import Image

from skinseg import build
from skinseg.config import check, compose, config_dir, plain
from skinseg.errors import SkinsegError
from skinseg.pictures import TRUTH_COLOUR, outlined
from skinseg.preview import _GAP, _TILE, PreviewConfig, run

SIZE = "data.image_size=[96,128]"


def sheet(folder: Path, *overrides: str) -> np.ndarray:
    return np.asarray(Image.open(run(compose([f"run_dir={folder}", SIZE, *overrides], "preview"))))


def tile(picture: np.ndarray, column: int) -> np.ndarray:
    """The tile of the first row, without its caption; photograph and input have the same proportions."""
    rows = np.flatnonzero((picture[:, _GAP : _GAP + _TILE] < 250).all(axis=2).mean(axis=1) > 0.9)
    top = int(rows[0])
    left = _GAP + column * (_TILE + _GAP)
    return picture[top : top + _TILE * 96 // 128, left : left + _TILE]


def test_shows_what_training_sees(write_ham: WriteHam, tmp_path: Path) -> None:
    overrides = [f"data.root={write_ham(12, size=(128, 96))}", "images=1", "draws=3", "seed=3"]
    picture = sheet(tmp_path, *overrides)
    config = plain(compose([f"run_dir={tmp_path}", SIZE, *overrides], "preview"))
    dataset = build.datamodule(config).dataset("train")
    (row,) = np.random.default_rng(3).choice(len(dataset), 1, replace=False)
    for epoch in range(3):
        sample = dataset[epoch, int(row)]
        image, mask = sample["image"].numpy().transpose(1, 2, 0), sample["mask"].numpy()[0] > 0
        expected = np.asarray(outlined(image, {TRUTH_COLOUR: mask}, _TILE))
        assert np.array_equal(tile(picture, 2 + epoch), expected)
    assert not np.array_equal(tile(picture, 2), tile(picture, 3)), "each epoch draws anew"


def test_without_augmentation_all_draws_are_the_input(write_ham: WriteHam, tmp_path: Path) -> None:
    root = write_ham(12, size=(128, 96))
    picture = sheet(tmp_path, f"data.root={root}", "augment=none", "images=1", "draws=2")
    assert np.array_equal(tile(picture, 1), tile(picture, 2))
    assert np.array_equal(tile(picture, 1), tile(picture, 3))
    photograph = tile(picture, 0).astype(int)
    cyan = (photograph[..., 2] - photograph[..., 0] > 60).sum()
    assert cyan > 100, "the photograph is outlined too"


def test_more_images_than_there_are(write_ham: WriteHam, tmp_path: Path) -> None:
    root = write_ham(12)
    few = sheet(tmp_path, f"data.root={root}", "images=2")
    everything = sheet(tmp_path, f"data.root={root}", "images=99")
    assert everything.shape[0] > 3 * few.shape[0]
    with pytest.raises(SkinsegError, match="images=0: expected 1 or more"):
        sheet(tmp_path, f"data.root={root}", "images=0")


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


GROUPS = ("data", "augment")


@pytest.mark.parametrize("group", GROUPS)
def test_config_of_each_option(group: str) -> None:
    for path in sorted((config_dir() / group).glob("*.yaml")):
        if not path.stem.startswith("base"):
            check(plain(compose([f"{group}={path.stem}", "run_dir=."], "preview")), PreviewConfig)
