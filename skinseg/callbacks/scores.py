"""The scores of the test images, a row per image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from skinseg.data.datamodule import LesionDataModule
from skinseg.errors import SkinsegError
from skinseg.evaluation.rows import Job, Options, Row, Scored, Scorer, workers_for
from skinseg.models.segmenter import LesionSegmenter
from skinseg.run.writing import write_csv


def score_table(segmenter: LesionSegmenter, data: LesionDataModule, subset: str) -> pd.DataFrame:
    """Returns a row per image of a scored subset.

    Args:
        segmenter: After `trainer.validate` or `trainer.test`.
        data: The data module that it was scored on.
        subset: "val" or "test".

    Returns:
        Columns image_id, group, diagnosis and the overlap metrics, sorted by image_id.
    """
    scores = segmenter.scores[subset]
    ids = data.dataset(subset).image_ids
    table = pd.DataFrame({"image_id": [ids[row] for row in scores.index], **scores.metrics})
    known = data.catalog.table[["image_id", "group", "diagnosis"]].fillna({"diagnosis": "unknown"})
    return known.merge(table, on="image_id").sort_values("image_id", ignore_index=True)


class ScoreWriter(Callback):
    """Writes the test subset's per-image scores as CSV at once; the evaluation adds to them later.

    Args:
        path: The file. Scores are in [0, 1], with all digits.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the file, on the first rank."""
        if trainer.is_global_zero:
            assert isinstance(pl_module, LesionSegmenter)
            data = trainer.datamodule  # type: ignore[attr-defined]
            write_csv(self.path, score_table(pl_module, data, "test"))


class EvaluationRows(Callback):
    """Scores the test images as `python -m skinseg.evaluate` does, while the trainer predicts them.

    Each process scores the images that it predicts: all are needed to predict one with a sharded network,
    and no image is predicted a second time. It has to come before callbacks that let one process alone do
    something that may fail: all processes meet at its end.

    Args:
        options: How they are scored. The folder of the masks is that of the first process.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.scored: Scored | None = None
        self._scorer: Scorer | None = None
        self._files: list[tuple[str, str]] = []
        self._failure: Exception | None = None

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Makes ready for as many images as this process has."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        ids = data.dataset("test").image_ids
        table = data.catalog.table.set_index("image_id").loc[ids]
        self._files = list(zip(table["image"], table["mask"], strict=True))
        workers = workers_for(len(ids) // trainer.world_size, trainer.num_devices)
        # Processes that others have started may each have named a run folder by their own clock.
        masks = trainer.strategy.broadcast(self.options.masks)
        self._scorer = Scorer(replace(self.options, masks=masks), workers=workers)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Hands a batch's probabilities over; what fails is kept until all processes can fail together."""
        assert self._scorer is not None
        if self._failure is not None:
            return
        rows, ids = batch["index"].tolist(), batch["image_id"]
        try:
            for row, image_id, probability in zip(rows, ids, outputs["probabilities"], strict=True):
                image, mask = self._files[row]
                self._scorer.add(Job(image_id, image, mask, probability.numpy()))
        except Exception as error:
            self._failure = error

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Brings the rows of all processes together, in each of them.

        Raises:
            SkinsegError: Truths do not fit, of which all are listed; or another process has failed.
        """
        assert self._scorer is not None
        rows: list[Row] = []
        try:
            rows = [] if self._failure is not None else self._scorer.rows()
        except Exception as error:
            self._failure = error
        parts: list[tuple[list[Row], str | None]] = [(rows, None)]
        if trainer.world_size > 1:
            parts *= trainer.world_size
            failed = None if self._failure is None else f"{type(self._failure).__name__}: {self._failure}"
            dist.all_gather_object(parts, (rows, failed))
        if self._failure is not None:
            raise self._failure
        if failures := [failed for _, failed in parts if failed is not None]:
            raise SkinsegError(f"Another process could not score its test images: {failures[0]}")
        self.scored = Scored.of(row for rows, _ in parts for row in rows)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Ends the processes that score."""
        self._close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Ends the processes that score."""
        self._close()

    def _close(self) -> None:
        if self._scorer is not None:
            self._scorer.close()
            self._scorer = None
