"""Say how good a network is, for whom, and how sure that is: scores, intervals, strata, a report.

python -m skinseg.evaluate ckpt=<run folder>/checkpoints/best.ckpt
python -m skinseg.evaluate predictions=<folder of masks> truth=<folder of masks>
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from skinseg.config.check import Changes, check, check_changes
from skinseg.config.command import Command
from skinseg.config.schema import Node, Plain
from skinseg.errors import SkinsegError


@dataclass
class EvaluateConfig:
    """Every key at the root of the configuration.

    Either `ckpt` or `predictions` is scored, on `data` or on the folder `truth` with the photographs in
    `images`.

    Attributes:
        name: Part of the folder's path.
        run_dir: The folder that the evaluation writes; of several checkpoints each has a folder in it.
        seed: Seed of the bootstrap.
        ckpt: A checkpoint or a list of them.
        trust: Packages of your own, or of somebody whom you trust, whose constructors they may name; see
            `skinseg.build.trust`.
        predictions: Folder of masks that any program wrote, one for each scored image and no others.
        images: Folder of photographs.
        truth: Folder of masks.
        strata: CSV with image_id and further columns, each of which is a stratum; a column lesion_id says
            which images of a folder show one lesion.
        side: "test", "val" or "train": the subset of the split.
        split_file: CSV with image_id and split. null: the split of the checkpoint's run; of other data
            everything is the test subset.
        overlap: What happens to images and lesions of other data that the network was trained with:
            "exclude", "refuse", or "keep", which stamps the scores CONTAMINATED.
        threshold: Lesion is where the probability is at least this. null: that of the checkpoint's run;
            "val": that of the largest mean Dice on the run's validation subset.
        tolerance_px: Tolerance of the normalised surface Dice, in pixels.
        tolerance_percent: The same in percent of the image's diagonal.
        bins: Number of bins of the calibration error and the reliability diagram.
        draws: Number of resamples of the bootstrap.
        level: Coverage of the intervals.
        gallery: How many of the worst, median and best images the report shows each.
        device: "auto" takes a GPU where there is one.
        precision: "32-true", "bf16-mixed" or "16-mixed". null: that of the checkpoint's run.
        workers: Processes that score. null: by the numbers of cores and images.
        data: The data set; without `data=<option>` that of the checkpoint's run, with these changes.
        group: Runs that belong together, in Weights & Biases.
        job_type: What the run does, in Weights & Biases.
        tags: Words to find the run by.
        notes: A sentence on the run.
        logger: Loggers by name: `logger=wandb` keeps tables and report as an artifact.
    """

    name: str
    run_dir: str
    seed: int
    ckpt: str | list[str] | None
    trust: str | list[str]
    predictions: str | None
    images: str | None
    truth: str | None
    strata: str | None
    side: Literal["test", "val", "train"]
    split_file: str | None
    overlap: Literal["exclude", "refuse", "keep"]
    threshold: float | Literal["val"] | None
    tolerance_px: float
    tolerance_percent: float
    bins: int
    draws: int
    level: float
    gallery: int
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] | None
    workers: int | None
    data: Node | Changes | None
    group: str | None
    job_type: str
    tags: list[str]
    notes: str | None
    logger: dict[str, Node | None] | None


def _checked(config: Plain) -> Plain:
    """Does what `check` does.

    Where `data` names no data set, its values become `as_trained`: changes of the data of the run.
    """
    as_trained: Plain = {}
    if config.get("data") and "_target_" not in config["data"]:
        as_trained = {key: value for key, value in config["data"].items() if value is not None}
        as_trained = check_changes("data", as_trained, "skinseg.data.datamodule.LesionDataModule")
        config = {**config, "data": None}
    if config.get("threshold") in ("test", "train"):
        raise SkinsegError(
            f"threshold={config['threshold']}: a threshold is chosen on validation, never on the images "
            "that it is scored on. Take threshold=val, or a number."
        )
    config = check(config, EvaluateConfig)
    if (config["ckpt"] is None) == (config["predictions"] is None):
        raise SkinsegError(
            "Say what to evaluate: ckpt=<checkpoint> or ckpt=[<several>], or predictions=<folder of masks>"
            + ("; not both." if config["ckpt"] is not None else ".")
        )
    if config["ckpt"] == []:
        raise SkinsegError("ckpt=[]: there is no checkpoint in the list.")
    if config["truth"] is not None and config["data"] is not None:
        raise SkinsegError("truth=<folder> and data=<data set> both say what is true; give one of them.")
    if config["truth"] is None and config["predictions"] is not None and config["data"] is None:
        raise SkinsegError(
            "predictions needs truth=<folder of masks>, or data=<data set> data.root=<folder>."
        )
    if config["truth"] is not None and config["ckpt"] is not None and config["images"] is None:
        raise SkinsegError("ckpt with truth=<folder> needs images=<folder of photographs> to predict.")
    if config["images"] is not None and config["truth"] is None:
        raise SkinsegError("images=<folder> needs truth=<folder of masks> to be scored against.")
    whole = config["data"] is not None or config["truth"] is not None
    if whole and config["side"] != "test" and config["split_file"] is None:
        raise SkinsegError(
            f"side={config['side']} of other data needs split_file=<CSV with image_id and split>."
        )
    if config["predictions"] is not None and config["threshold"] is not None:
        raise SkinsegError(
            "threshold: masks are of 0 and 255 already; there is no probability to compare with it."
        )
    least = {"draws": 100, "bins": 2, "gallery": 1, "tolerance_px": 0, "tolerance_percent": 0, "workers": 0}
    for key, lowest in least.items():
        if config[key] is not None and config[key] < lowest:
            raise SkinsegError(f"{key}={config[key]}: expected {lowest} or more.")
    if not 0.5 <= config["level"] < 1:
        raise SkinsegError(f"level={config['level']}: expected a coverage from 0.5 to below 1, such as 0.95.")
    return {**config, "as_trained": as_trained}


_COMMAND = Command("evaluate", EvaluateConfig, "skinseg.recipes.evaluate", checked=_checked)
run, main = _COMMAND.run, _COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
