"""The scores of the test side, a row per image."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pandas as pd
from lightning.pytorch.callbacks import Callback

from skinseg.data.datamodule import LesionDataModule
from skinseg.models.segmenter import LesionSegmenter
from skinseg.run.writing import write_csv


def score_table(segmenter: LesionSegmenter, data: LesionDataModule, side: str) -> pd.DataFrame:
    """Returns a row per image of a scored side.

    Args:
        segmenter: After `trainer.validate` or `trainer.test`.
        data: The data module that it was scored on.
        side: "val" or "test".

    Returns:
        Columns image_id, group, diagnosis and the overlap metrics, sorted by image_id.
    """
    scores = segmenter.scores[side]
    ids = data.dataset(side).image_ids
    table = pd.DataFrame({"image_id": [ids[row] for row in scores.index], **scores.metrics})
    known = data.catalog.table[["image_id", "group", "diagnosis"]].fillna({"diagnosis": "unknown"})
    return known.merge(table, on="image_id").sort_values("image_id", ignore_index=True)


class ScoreWriter(Callback):
    """Writes the test side's per-image scores as CSV.

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
