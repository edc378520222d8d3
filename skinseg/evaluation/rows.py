"""A row of scores per image, in worker processes."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Generic, TypeVar

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinseg.counting import counted
from skinseg.data.files import fit_mask, write_mask
from skinseg.data.loader import usable_cores
from skinseg.data.photographs import (
    DEFAULT_MAX_MEGAPIXELS,
    UnreadableFileError,
    read_frame,
    read_image,
    read_mask,
)
from skinseg.errors import SkinsegError
from skinseg.inference.files import kept_mask_name, masks_of_others, read_prediction
from skinseg.run.written import Call, current, go_on
from skinseg.scoring.appearance import APPEARANCE, appearance
from skinseg.scoring.calibration import calibration_counts
from skinseg.scoring.metrics import METRICS, image_scores

# Jobs for each worker. Twice as many left the heap in more pieces: 0.2 GB more after 960 probabilities of
# 4 MB.
_WAITING = 2

# Fewer images than this are scored sooner than processes for them have started.
_FEW = 64

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How images are scored.

    Attributes:
        threshold: Lesion is where the probability is at least this.
        tolerance_px: Tolerance of the normalised surface Dice, in pixels.
        tolerance_percent: The same, in percent of the diagonal.
        bins: Number of bins of the calibration.
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
class Row:
    """What came of one image.

    Attributes:
        scores: image_id, height, width, truth_digest (names the truth's pixels), the keys of `METRICS` and of
            `APPEARANCE`; nothing where there is a problem.
        calibration: float64 of shape (bins, 3) as `calibration_counts` gives them; None without
            probabilities.
        problem: Why the image cannot be scored; None where it was.
    """

    scores: Mapping[str, object]
    calibration: NDArray[np.float64] | None
    problem: str | None


@dataclass(frozen=True)
class Scored:
    """What came of the images.

    Attributes:
        table: A row per image: the scores of `Row` (those of calibration only with probabilities), sorted by
            image_id.
        calibration: float64 of shape (n, bins, 3) as `calibration_counts` gives them, in the table's order;
            None without probabilities.
    """

    table: pd.DataFrame
    calibration: NDArray[np.float64] | None

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Scored:
        """Puts the rows of images in order; of an image that was scored twice one counts.

        Raises:
            SkinsegError: Predicted masks or truths do not fit; all of them are listed.
        """
        found = {str(row.scores.get("image_id", row.problem)): row for row in rows}
        _refuse([row.problem for row in found.values() if row.problem is not None])
        ordered = [found[image_id] for image_id in sorted(found)]
        table = pd.DataFrame([row.scores for row in ordered])
        counts = [row.calibration for row in ordered if row.calibration is not None]
        columns = ["image_id", "height", "width", "truth_digest", *(m for m in METRICS if m in table)]
        columns += [name for name in APPEARANCE if name in table]
        return cls(table[columns], np.stack(counts) if counts else None)


class Scorer:
    """Scores images as they are handed over; at no time are more than a few of them in memory.

    To be closed, or used as a context.

    Args:
        options: How they are scored.
        workers: Processes; 0: this one.
        advance: Called after each image.
    """

    def __init__(
        self, options: Options, *, workers: int = 0, advance: Callable[[], None] = lambda: None
    ) -> None:
        self._mapping = _Mapping(_Score(options), workers)
        self._advance = advance
        self._rows: list[Row] = []

    def add(self, job: Job) -> None:
        """Takes an image; waits for an earlier one where too many are in work."""
        self._take(self._mapping.add(job))

    def rows(self) -> list[Row]:
        """Waits for what is in work, and returns the rows of all images so far, in the order of `add`."""
        self._take(self._mapping.rest())
        return self._rows

    def close(self) -> None:
        """Ends the processes; what is in work is given up."""
        self._mapping.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._rows.append(row)
            self._advance()


def score_images(
    jobs: Iterable[Job], options: Options, *, workers: int = 0, advance: Callable[[], None] = lambda: None
) -> Scored:
    """Scores images as they come; see `Scorer`.

    Args:
        jobs: The images.
        options: How they are scored.
        workers: Processes; 0: this one.
        advance: Called after each image.

    Returns:
        The scores.

    Raises:
        SkinsegError: Predicted masks or truths do not fit; all of them are listed.
    """
    with Scorer(options, workers=workers, advance=advance) as scorer:
        for job in jobs:
            scorer.add(job)
        scored = Scored.of(scorer.rows())
    if options.masks is not None and (others := masks_of_others(options.masks)):
        log.warning(
            "Left in %s: %s that this evaluation did not write, e.g. %s.",
            options.masks, counted(len(others), "mask"), others[0].name,
        )  # fmt: skip
    return scored


def workers_for(images: int, processes: int = 1) -> int:
    """Returns how many processes score so many images well, beside each of so many that predict them.

    None where the program is a script or typed in: a new process would run it anew.
    """
    if images < _FEW or getattr(sys.modules["__main__"], "__spec__", None) is None:
        return 0
    return min(8, max(1, usable_cores() // processes - 1))


def best_threshold(
    jobs: Iterable[Job],
    *,
    workers: int = 0,
    advance: Callable[[], None] = lambda: None,
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
) -> tuple[float, dict[float, float]]:
    """Finds the threshold of the largest mean Dice.

    Args:
        jobs: Images of the validation subset, with probabilities.
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
    with closing(_Mapping(partial(_dice_by_threshold, max_megapixels), workers)) as mapping:
        for dice in chain(chain.from_iterable(map(mapping.add, jobs)), mapping.rest()):
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


class _Mapping(Generic[T]):
    """Maps jobs in order, in this process or in others.

    Args:
        function: What is done with a job.
        workers: Processes; 0: this one.
    """

    def __init__(self, function: Callable[[Job], T], workers: int) -> None:
        self._function = function
        self._workers = workers
        self._waiting: deque[Future[T]] = deque()
        self._pool: ProcessPoolExecutor | None = None

    def add(self, job: Job) -> Iterator[T]:
        """Takes a job, and yields what has to be done first where there is no room for it."""
        if not self._workers:
            yield self._function(job)
            return
        if self._pool is None:
            # Forking a process with PyTorch's threads can deadlock.
            self._pool = ProcessPoolExecutor(self._workers, get_context("spawn"), _start_worker, (current(),))
        self._waiting.append(self._pool.submit(self._function, job))
        if len(self._waiting) >= _WAITING * self._workers:
            yield self._waiting.popleft().result()

    def rest(self) -> Iterator[T]:
        """Yields what is left."""
        while self._waiting:
            yield self._waiting.popleft().result()

    def close(self) -> None:
        """Ends the processes."""
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _start_worker(call: Call | None) -> None:
    cv2.setNumThreads(0)
    go_on(call)
    # Both go to all processes of a group: the first one decides, and ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_first, daemon=True).start()


def _end_with_the_first() -> None:
    """Ends this process when the first one is gone, for it would wait for jobs for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@dataclass(frozen=True)
class _Score:
    options: Options

    def __call__(self, job: Job) -> Row:
        try:
            return self._score(job)
        except UnreadableFileError as error:
            return Row({}, None, str(error))

    def _score(self, job: Job) -> Row:
        options = self.options
        truth, probability, prediction = _masks(job, options.threshold, options.max_megapixels)
        if probability is not None and not np.isfinite(probability).all():
            why = "the network gives NaN; take another checkpoint, or precision=32-true where it overflows"
            return Row({}, None, f"{job.image}: {why}")
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
        return Row(row, counts, None)


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
