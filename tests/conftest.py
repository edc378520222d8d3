"""What all tests share: a quiet, offline, single-threaded process, and small data on disk."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before anything imports torch, wandb or the Hub.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"
os.environ["WANDB_SILENT"] = "true"

import lightning as L
import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.callbacks import Callback
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps decoded images out of the user's own cache; returns the folder."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["SKINSEG_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, or a skip that says how to provide it."""
    folder = Path(os.environ.get("SKINSEG_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "ham10000").is_dir():
        pytest.skip(f"no real data: {folder}/ham10000 is not there; set SKINSEG_TEST_DATA")
    return folder


def write_image(path: Path, *, size: tuple[int, int] = (20, 15), colour: object = None) -> Path:
    """Writes a JPEG of one colour, which by default depends on the file's name alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if colour is None:
        seed = np.frombuffer(os.fsencode(path.stem), np.uint8).astype(int)
        colour = tuple(int(v) for v in np.random.default_rng(seed).integers(90, 240, 3))
    Image.new("RGB", size, colour).save(path, quality=90)  # type: ignore[arg-type]
    return path


def write_mask(path: Path, *, size: tuple[int, int] = (20, 15), shift: int = 0) -> Path:
    """Writes a mask with a box in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[size[1] // 4 : size[1] // 2, size[0] // 4 + shift : size[0] // 2 + shift] = 255
    Image.fromarray(mask).save(path)
    return path


WriteHam = Callable[..., Path]


def make_ham(root: Path, lesions: int = 12, *, size: tuple[int, int] = (40, 32), flat: bool = False) -> Path:
    """Writes a small HAM10000: dark discs on light squares, two images a lesion."""
    parts = [root / "images"] * 2 if flat else [root / f"HAM10000_images_part_{i}" for i in (1, 2)]
    masks = root / "HAM10000_segmentations_lesion_tschandl"
    for folder in (*parts, masks):
        folder.mkdir(parents=True, exist_ok=True)
    rows = []
    generator = np.random.default_rng(0)
    ys, xs = np.mgrid[: size[1], : size[0]]
    for number in range(2 * lesions):
        image_id = f"ISIC_{9_000_000 + number}"
        centre = generator.uniform(0.35, 0.65, 2) * size
        disc = (xs - centre[0]) ** 2 + (ys - centre[1]) ** 2 < (min(size) * generator.uniform(0.2, 0.35)) ** 2
        image = np.where(disc[..., None], (110, 70, 50), (225, 180, 165)) + generator.normal(
            0, 6, (*disc.shape, 3)
        )
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
            parts[number % 2] / f"{image_id}.jpg", quality=95
        )
        Image.fromarray(disc.astype(np.uint8) * 255).save(masks / f"{image_id}_segmentation.png")
        rows.append(
            {
                "lesion_id": f"HAM_{9_000_000 + number // 2}",
                "image_id": image_id,
                "dx": ("nv", "mel", "bkl")[number // 2 % 3],
                "dx_type": "histo",
                "age": (55.0, 0.0, None)[number % 3],
                "sex": "male",
                "localization": "back",
            }
        )
    pd.DataFrame(rows).to_csv(root / "HAM10000_metadata.csv", index=False)
    return root


@pytest.fixture
def write_ham(tmp_path: Path) -> WriteHam:
    """Returns a function that writes a small HAM10000 in the test's folder or another one."""

    def write(
        lesions: int = 12, *, root: Path | None = None, size: tuple[int, int] = (40, 32), flat: bool = False
    ) -> Path:
        return make_ham(root or tmp_path / "ham10000", lesions, size=size, flat=flat)

    return write


def chosen(data: str) -> list[str]:
    """The overrides that choose a data set, with the place that data of one's own need."""
    return [f"data={data}", *(["data.images=."] if data == "folder" else [])]


TINY = (
    "model=tiny",
    "data.image_size=[32,32]",
    "data.batch_size=4",
    "data.num_workers=0",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "threads=1",
    "logger=[csv]",
    "optimizer.lr=0.002",
    "report=false",
)
"""Overrides of a run of a second or two."""

Train = Callable[..., Path]


def train_tiny(root: Path, folder: Path, *overrides: str) -> Path:
    """Runs a small experiment in this process and returns its run folder."""
    from skinseg.config.compose import compose
    from skinseg.train import run

    run(compose([*TINY, f"data.root={root}", f"run_dir={folder}", *overrides]))
    return folder


@pytest.fixture
def train(write_ham: WriteHam, tmp_path: Path) -> Train:
    """Returns a function that runs a small experiment in this process and returns its run folder."""

    def run_tiny(*overrides: str, root: Path | None = None, run_dir: str = "run") -> Path:
        root = root or (tmp_path / "ham10000" if (tmp_path / "ham10000").is_dir() else write_ham(20))
        return train_tiny(root, tmp_path / run_dir, *overrides)

    return run_tiny


SCORER = ("isic-challenge-scoring==5.6.0", "pandas<4")
"""The ISIC Challenge's public scorer."""

AskScorer = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def ask_scorer(tmp_path_factory: pytest.TempPathFactory) -> AskScorer:
    """Installs the public scorer in an environment of its own; returns a call of make_golden.py there."""
    environment = tmp_path_factory.mktemp("scorer")
    venv.create(environment, with_pip=True)
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def call(*arguments: str | Path) -> None:
        done = subprocess.run([python, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"

    call("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *SCORER)

    def ask(output: Path, *arguments: str | Path) -> dict[str, Any]:
        call(REPOSITORY / "tests/scoring/make_golden.py", output, *arguments)
        return json.loads(output.read_text(encoding="utf-8"))

    return ask


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy with other values at dotted keys."""
    config = copy.deepcopy(config)
    for path, value in changes.items():
        *groups, key = path.split(".")
        node = config
        for group in groups:
            node = node[group]
        node[key] = value
    return config


class InterruptAt(Callback):
    """Presses Ctrl-C after an optimizer step, after a batch, or in the validation of an epoch."""

    def __init__(
        self, step: int | None = None, batch: int | None = None, validation: int | None = None
    ) -> None:
        self.step = step
        self.batch = batch
        self.validation = validation

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step or trainer.fit_loop.epoch_loop.batch_idx == self.batch:
            self._press()

    def on_validation_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == self.validation:
            self._press()

    @staticmethod
    def _press() -> None:
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in what a shell starts in the background
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGINT)


class RecordRank(Callback):
    """Writes the learning rate that each rank was configured with."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        rate = trainer.optimizers[0].defaults["lr"]
        (self.folder / f"rank{trainer.global_rank}.txt").write_text(str(rate))
