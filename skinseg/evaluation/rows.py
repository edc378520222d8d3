"""A row of scores per image, in worker processes."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinseg.counting import counted
from skinseg.data.files import fit_mask
from skinseg.data.photographs import (
    DEFAULT_MAX_MEGAPIXELS,
    UnreadableFileError,
    read_frame,
    read_image,
    read_mask,
)
from skinseg.errors import SkinsegError
from skinseg.inference.files import kept_mask_name, masks_of_others, read_prediction, write_mask
from skinseg.run.written import Call, current, go_on
from skinseg.scoring.appearance import APPEARANCE, appearance
from skinseg.scoring.calibration import calibration_counts
from skinseg.scoring.metrics import METRICS, image_scores

# Jobs for each worker. Twice as many left the heap in more pieces: 0.2 GB more after 960 probabilities of
# 4 MB.
_WAITING = 2

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How images are scored.

    Attributes:
        threshold: Lesion is where the probability is at least this.
        tolerance_px: Of the normalised surface Dice, in pixels.
        tolerance_percent: In percent of the diagonal.
        bins: Of the calibration.
        masks: Folder for the predicted masks; None: they are not kept.
        appearance: Also measure what the photograph shows.
        max_megapixels: Most millions of pixels of a picture.
    """

    threshold: float = 0.5
    tolerance_px: float = 2.0
    tolerance_percent: float = 0.5
    bins: int = 15
    masks: Path | None = None
    appearance: bool = True
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS


@dataclass(frozen=True)
class Job:
    """One image to score.

    Attributes:
        image_id: Its id.
        image: The photograph; None where there is none.
        mask: The truth.
        prediction: Probabilities, float32 of shape (H, W) at the image's own size, or a mask file.
    """

    image_id: str
    image: str | None
    mask: str
    prediction: NDArray[np.float32] | Path


@dataclass(frozen=True)
class Scored:
    """What came of the images.

    Attributes:
        table: A row per image: image_id, height, width, truth_digest (names the truth's pixels), the keys of
            `METRICS` (those of calibration only with probabilities) and of `APPEARANCE`; sorted by image_id.
        calibration: float64 of shape (n, bins, 3) as `calibration_counts` gives them, in the table's order;
            None without probabilities.
    """

    table: pd.DataFrame
    calibration: NDArray[np.float64] | None


def score_images(
    jobs: Iterable[Job], options: Options, *, workers: int = 0, advance: Callable[[], None] = lambda: None
) -> Scored:
    """Scores images as they come; at no time are more than a few of them in memory.

    Args:
        jobs: The images.
        options: How.
        workers: Processes; 0: this one.
        advance: Called after each image.

    Returns:
        The scores.

    Raises:
        SkinsegError: Predicted masks or truths do not fit; all of them are listed.
    """
    rows, counts, problems = [], [], []
    for row, count, problem in _results(jobs, options, workers):
        advance()
        if problem is not None:
            problems.append(problem)
            continue
        rows.append(row)
        counts.append(count)
    _refuse(problems)
    if options.masks is not None and (others := masks_of_others(options.masks)):
        log.warning(
            "Left in %s: %s that this evaluation did not write, e.g. %s.",
            options.masks, counted(len(others), "mask"), others[0].name,
        )  # fmt: skip
    table = pd.DataFrame(rows)
    order = np.argsort(table["image_id"].to_numpy(dtype=str), kind="stable")
    known = [count for count in counts if count is not None]
    stacked = np.stack(known)[order] if known else None
    columns = ["image_id", "height", "width", "truth_digest", *(m for m in METRICS if m in table)]
    columns += [name for name in APPEARANCE if name in table]
    return Scored(table.iloc[order][columns].reset_index(drop=True), stacked)


def best_threshold(
    jobs: Iterable[Job],
    *,
    workers: int = 0,
    advance: Callable[[], None] = lambda: None,
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
) -> tuple[float, dict[float, float]]:
    """Finds the threshold of the largest mean Dice.

    Args:
        jobs: Images of the validation side, with probabilities.
        workers: Processes.
        advance: Called after each image.
        max_megapixels: Most millions of pixels of a mask.

    Returns:
        The threshold (of several equally good ones that nearest to 0.5) and the mean Dice of each that was
        tried, from 0.05 to 0.95.
    """
    sums = np.zeros(len(THRESHOLDS))
    number = 0
    problems = []
    for dice in _mapped(partial(_dice_by_threshold, max_megapixels), jobs, workers):
        if isinstance(dice, str):
            problems.append(dice)
        else:
            sums += dice
            number += 1
        advance()
    _refuse(problems)
    means = sums / number
    best = min(np.flatnonzero(means >= means.max() - 1e-12), key=lambda k: abs(THRESHOLDS[k] - 0.5))
    return THRESHOLDS[best], dict(zip(THRESHOLDS, means.tolist(), strict=True))


def _refuse(problems: list[str]) -> None:
    if problems:
        shown = [f"  {problem}" for problem in sorted(problems)[:10]]
        more = [f"  and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise SkinsegError("\n".join([f"{counted(len(problems), 'mask')} cannot be scored:", *shown, *more]))


THRESHOLDS = [round(0.05 * k, 2) for k in range(1, 20)]
"""What `best_threshold` tries."""


Result = tuple[dict[str, object], NDArray[np.float64] | None, str | None]


def _results(jobs: Iterable[Job], options: Options, workers: int) -> Iterator[Result]:
    yield from _mapped(_Score(options), jobs, workers)


def _mapped(function: Callable[[Job], T], jobs: Iterable[Job], workers: int) -> Iterator[T]:
    """Maps in order; takes a job only when there is room for it."""
    if not workers:
        yield from map(function, jobs)
        return
    # Forking a process with PyTorch's threads can deadlock.
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (current(),)) as pool:
        waiting: deque[Future[T]] = deque()
        for job in jobs:
            waiting.append(pool.submit(function, job))
            if len(waiting) >= _WAITING * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _start_worker(call: Call | None) -> None:
    cv2.setNumThreads(0)
    go_on(call)


@dataclass(frozen=True)
class _Score:
    options: Options

    def __call__(self, job: Job) -> Result:
        try:
            return self._score(job)
        except UnreadableFileError as error:
            return {}, None, str(error)

    def _score(self, job: Job) -> Result:
        options = self.options
        truth, probability, prediction = _masks(job, options.threshold, options.max_megapixels)
        scores = image_scores(
            truth,
            prediction,
            probability,
            tolerance_px=options.tolerance_px,
            tolerance_percent=options.tolerance_percent,
            bins=options.bins,
        )
        if options.masks is not None:
            write_mask(options.masks / kept_mask_name(job.image_id), prediction)
        row: dict[str, object] = {
            "image_id": job.image_id,
            "height": truth.shape[0],
            "width": truth.shape[1],
            "truth_digest": hashlib.sha256(np.packbits(truth).tobytes()).hexdigest()[:12],
            **scores,
        }
        if options.appearance and job.image is not None:
            row |= appearance(read_image(job.image, max_megapixels=options.max_megapixels), truth)
        counts = None if probability is None else calibration_counts(probability, truth, options.bins)
        return row, counts, None


def _masks(
    job: Job, threshold: float, max_megapixels: float
) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None, NDArray[np.bool_]]:
    """Truth, probability and prediction of an image, all of the image's own size."""
    if isinstance(job.prediction, Path):
        truth = read_mask(job.mask, max_megapixels)
        if job.image is not None:
            truth = fit_mask(truth, read_frame(job.image, max_megapixels).size)
        size = (truth.shape[0], truth.shape[1])
        return truth > 0, None, read_prediction(job.prediction, size, max_megapixels)
    height, width = job.prediction.shape
    truth = fit_mask(read_mask(job.mask, max_megapixels), (height, width))
    return truth > 0, job.prediction, job.prediction >= threshold


def _dice_by_threshold(max_megapixels: float, job: Job) -> NDArray[np.float64] | str:
    """Dice of each threshold, or what is wrong with the truth."""
    try:
        truth, probability, _ = _masks(job, 0.5, max_megapixels)
    except UnreadableFileError as error:
        return str(error)
    assert probability is not None
    lesion = probability[truth]
    dice = np.empty(len(THRESHOLDS))
    for index, threshold in enumerate(THRESHOLDS):
        found, marked = np.count_nonzero(lesion >= threshold), np.count_nonzero(probability >= threshold)
        total = len(lesion) + marked
        dice[index] = 2 * found / total if total else 1.0
    return dice
