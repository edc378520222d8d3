"""How much memory the commands take: not more for more images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY, make_ham, train_tiny

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read from Linux' /proc"),
]

WIDTH, HEIGHT = 1600, 1200
FEW, MANY = 12, 60

# Runs a command and prints the most memory that its process held; what getrusage says of a child begins
# with what its parent held.
PEAK = """
import re, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    if end.code:
        raise
print("peak", re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, and folders of few and of many photographs with masks."""
    root = tmp_path_factory.mktemp("memory")
    train_tiny(make_ham(root / "ham10000", 12), root / "run", "test=false", "callbacks=minimal")
    generator = np.random.default_rng(0)
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(MANY):
        centre = generator.uniform(0.3, 0.7, 2) * (WIDTH, HEIGHT)
        disc = (xs - centre[0]) ** 2 + (ys - centre[1]) ** 2 < generator.uniform(100, 300) ** 2
        mask = disc.astype(np.uint8) * 255
        content = {
            "images/{}.jpg": np.where(disc[..., None], (50, 70, 110), (165, 180, 225)).astype(np.uint8),
            "truth/{}_segmentation.png": mask,
            "masks/{}_segmentation.png": np.roll(mask, 20, axis=0),
        }
        for name, picture in content.items():
            for count in (FEW, MANY):
                path = root / str(count) / name.format(f"ISIC_{number:07d}")
                path.parent.mkdir(parents=True, exist_ok=True)
                if number < count:
                    cv2.imwrite(str(path), picture)
    return root


def peak(place: Path, command: str, *arguments: str) -> int:
    """Returns the most bytes that the command's process held at once."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, f"skinseg.{command}", *arguments],
        cwd=place, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.split("peak")[-1]) * 1024


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("evaluate predictions={}/masks images={}/images truth={}/truth draws=200 gallery=2", 1),  # a mask
        ("evaluate ckpt=run/checkpoints/best.ckpt images={}/images truth={}/truth draws=200 gallery=2", 4),
        ("predict ckpt=run/checkpoints/best.ckpt input={}/images output=out{}", 3),  # a photograph
    ],
)  # fmt: skip
def test_does_not_grow_with_the_images(place: Path, command: str, kept: int, workers: int) -> None:
    """What is kept of each image, in bytes a pixel, would be there; of a checkpoint's the probabilities."""
    held = []
    for count in (FEW, MANY):
        name, *arguments = command.replace("{}", str(count)).split()
        loading = {"evaluate": "workers={0} data.num_workers={0}", "predict": "num_workers={0} batch_size=4"}
        if "predictions=" in command:
            loading["evaluate"] = "workers={0}"
        elif name == "evaluate":
            arguments.append("data.batch_size=4")
        if name == "predict":
            arguments.append("overwrite=true")
        arguments += [*loading[name].format(workers).split(), f"hydra.run.dir=log{count}_{workers}_{kept}"]
        held.append(peak(place, name, *arguments))
    growth, pictures = held[1] - held[0], (MANY - FEW) * WIDTH * HEIGHT * kept
    assert growth < pictures / 2, f"{growth / 1e6:.0f} MB more; the pictures have {pictures / 1e6:.0f} MB"
