"""What a command imports before it is needed: nothing heavy; and what a refused start leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

HEAVY = (
    "torch",
    "torchvision",
    "torchmetrics",
    "lightning",
    "albumentations",
    "segmentation_models_pytorch",
    "timm",
    "pandas",
    "scipy",
    "sklearn",
    "cv2",
    "matplotlib",
    "wandb",
)
COMMANDS = ("train", "evaluate", "predict", "compare", "audit", "split", "preview", "download", "ensemble")
REPORT = "\nimported: "
# Runs a command as `python -m` does, and says at its end which of the modules it has imported.
RUN = f"""
import atexit, runpy, sys
heavy = {HEAVY!r}
atexit.register(lambda: print({REPORT!r} + " ".join(m for m in heavy if m in sys.modules), file=sys.stderr))
command, *sys.argv[1:] = sys.argv[1:]
runpy.run_module("skinseg." + command, run_name="__main__", alter_sys=True)
"""


def call(*arguments: str, cwd: Path) -> tuple[subprocess.CompletedProcess[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "", "HOME": str(cwd)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert REPORT in done.stderr, done.stderr
    return done, done.stderr.rsplit(REPORT, 1)[1].strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_light(command: str, tmp_path: Path) -> None:
    done, heavy = call(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "== Configuration groups ==" in done.stdout
    assert heavy == ""


def test_showing_the_configuration_is_light(tmp_path: Path) -> None:
    done, heavy = call("train", "--cfg", "job", cwd=tmp_path)
    assert "monitor: val/dice" in done.stdout
    assert heavy == ""


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (
            ["train", "+sead=1", "seed=many", "+model.encoder_nam=x", "+augment.transforms.affine.rotat=3",
             "trainer.precision=bf17", "~data.image_size"],
            ["6 problems", "did you mean seed?", "seed='many'", "did you mean model.encoder_name?",
             "did you mean augment.transforms.affine.rotate?", "trainer.precision='bf17'",
             "data.image_size: missing"],
        ),
        (
            ["train", "model=unett", "data=isic10", "+experiment=unet_resnet43", "+sead=1"],
            ["4 problems", "model=unett: no such option; did you mean model=unet? Known: deeplabv3,",
             "data=isic10: no such option", "did you mean +experiment=unet_resnet34?", "did you mean seed?"],
        ),
        (["train", "logger=[csv,wandbb]"], ["wandbb: no such option; did you mean 'logger=[csv,wandb]'?"]),
        (["train", "model=unett,unet", "-m"], ["model=unett: no such option; did you mean model=unet?"]),
        (["train", "~logger", "modle=unet"],
         ["~logger: it needs an option; for none: logger=none", "did you mean model?"]),
        (["evaluate", "checkpoint=x"], ["did you mean ckpt?"]),
        (["train", "+expriment=demo"], ["expriment: unknown key of the root; did you mean experiment?"]),
        (["evaluate", "+cktp=x"], ["cktp: unknown key of the root; did you mean ckpt?"]),
        (["predict", "ckpt=x", "input=y", "output=z", "device=gpu"], ["device='gpu': Input should be"]),
        (["predict", "ckpt=x", "inptu=y", "output=z"],
         ["2 problems", "input: missing; add input=<value>", "did you mean input?"]),
        (["evaluate", "ckpt=x", "thresold=val"], ["A problem in", "did you mean threshold?"]),
        (["predict", "ckpt=x", "input=my photos, a=b", "output=z"], ["quotes within quotes"]),
        (["predict", "ckpt=a b", "input=y", "output=z", "threshold=val"],
         ["validation chooses says python -m skinseg.evaluate \"ckpt='a b'\" threshold=val"]),
        (["audit", "data.root=x", "fail_on=problems"], ["fail_on='problems'"]),
    ],
    ids=lambda value: " ".join(value[:3]) if value[0] in COMMANDS else "",
)  # fmt: skip
def test_a_refused_configuration_is_told_at_once_and_leaves_nothing(
    arguments: list[str], messages: list[str], tmp_path: Path
) -> None:
    done, heavy = call(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    for message in messages:
        assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert heavy == ""
    if "-m" not in arguments:
        assert not list(tmp_path.iterdir())


def test_an_option_of_ones_own_folder(tmp_path: Path) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text("_target_: segmentation_models_pytorch.Unet\n")
    done, heavy = call("train", "--config-dir", "own", "model=mime", cwd=tmp_path)
    assert done.returncode == 2
    assert "model=mime: no such option; did you mean model=mine?" in done.stderr
    assert heavy == ""
