"""Pictures of predictions: truth and prediction outlined on the photograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from skinseg.callbacks.scores import score_table
from skinseg.data.datamodule import LesionDataModule
from skinseg.data.dataset import LesionDataset
from skinseg.models.segmenter import LesionSegmenter
from skinseg.pictures import PREDICTION_COLOUR, TRUTH_COLOUR, Panel, Strip, contact_sheet, outlined
from skinseg.run.writing import replacing
from skinseg.tracking.pictures import log_mask_images

_WIDTH = 300


class PredictionPanels(Callback):
    """Shows some validation images through training, and the best, median and worst of the test subset.

    Args:
        path: PNG of the test subset.
        images: Number of validation images that are followed.
        every_n_epochs: How often they are logged.
        columns: Images in each row of the PNG.
    """

    def __init__(self, path: str, images: int = 4, every_n_epochs: int = 5, columns: int = 4) -> None:
        if every_n_epochs < 1 or columns < 1 or images < 0:
            raise ValueError(
                f"every_n_epochs={every_n_epochs}, columns={columns}, images={images}: too small."
            )
        self.path = Path(path)
        self.images = images
        self.every_n_epochs = every_n_epochs
        self.columns = columns

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the followed images to Weights & Biases and TensorBoard, where they are in use."""
        last = trainer.max_epochs is not None and trainer.current_epoch + 1 == trainer.max_epochs
        due = trainer.current_epoch % self.every_n_epochs == 0 or last
        segmenter, data = _parts(trainer, pl_module)
        if not (_predicts(trainer, segmenter) and due and trainer.loggers and self.images):
            return
        dataset = data.dataset("val")
        rows = np.linspace(0, len(dataset) - 1, min(self.images, len(dataset))).round().astype(int)
        panels = [predict_panel(trainer, segmenter, dataset, int(row), "") for row in rows]
        if trainer.is_global_zero:
            self._log(trainer, "val/predictions", panels)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws the PNG."""
        segmenter, data = _parts(trainer, pl_module)
        if not _predicts(trainer, segmenter):
            return
        table = score_table(segmenter, data, "test").sort_values("dice", kind="stable", ignore_index=True)
        dataset = data.dataset("test")
        row_of = {image_id: row for row, image_id in enumerate(dataset.image_ids)}
        count = min(self.columns, len(table))
        middle = max(0, (len(table) - count) // 2)
        choice = {
            "best": table.iloc[::-1].head(count),
            "median": table.iloc[middle : middle + count],
            "worst": table.head(count),
        }
        grid = {
            title: [
                predict_panel(
                    trainer,
                    segmenter,
                    dataset,
                    row_of[str(row.image_id)],
                    f"{row.diagnosis}   Dice {row.dice:.3f}",
                )
                for row in rows.itertuples()
            ]
            for title, rows in choice.items()
        }
        if not trainer.is_global_zero:
            return
        mean = segmenter.scores["test"].means()["dice"]
        heading = f"Test images by Dice: mean {mean:.3f}, n = {len(table)}"
        heading += "".join(f"   {stamp.split(':')[0]}" for stamp in data.stamps("test", len(table)))
        with replacing(self.path) as temporary:
            draw_panels(grid, heading).save(temporary, format="PNG")
        self._log(trainer, "test/predictions", [panel for row in grid.values() for panel in row])

    def _log(self, trainer: L.Trainer, key: str, panels: Sequence[Panel]) -> None:
        log_mask_images(trainer.loggers, key, panels, trainer.global_step)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                picture = np.asarray(draw_panels({"": panels}, key))
                logger.experiment.add_image(key, picture, trainer.global_step, dataformats="HWC")


def predict_panel(
    trainer: L.Trainer, segmenter: LesionSegmenter, dataset: LesionDataset, row: int, caption: str
) -> Panel:
    """Predicts one image of a scored subset with the weights at hand.

    Args:
        trainer: Gives the precision of the run.
        segmenter: The network.
        dataset: A data set with truth.
        row: Row of the data set.
        caption: Second line under the picture; the first is the id.
    """
    sample = dataset[row]
    truth = sample["truth"].numpy()
    training = segmenter.training
    segmenter.eval()
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        images = sample["image"][None].to(segmenter.device)
        probability = segmenter.net.probabilities(images, (truth.shape[0], truth.shape[1]))
    segmenter.train(training)
    predicted = (probability[0, 0] >= segmenter.net.threshold).cpu().numpy()
    image_id = sample["image_id"]
    return Panel(
        image_id, dataset.files[row].read_photograph(), truth, predicted, f"{image_id}\n{caption}".strip()
    )


def draw_panels(rows: Mapping[str, Sequence[Panel]], heading: str) -> Image.Image:
    """Draws rows of outlined photographs with titles and a legend.

    Args:
        rows: Title to panels. An empty title is not written.
        heading: First line of the picture.

    Returns:
        An RGB picture.
    """
    strips = [
        Strip([_outlined(panel) for panel in panels], [panel.caption for panel in panels], title)
        for title, panels in rows.items()
    ]
    return contact_sheet(strips, heading, legend={"prediction": PREDICTION_COLOUR, "truth": TRUTH_COLOUR})


def _outlined(panel: Panel) -> Image.Image:
    masks = {TRUTH_COLOUR: panel.truth, PREDICTION_COLOUR: panel.predicted}
    return outlined(panel.image, masks, _WIDTH)


def _predicts(trainer: L.Trainer, segmenter: LesionSegmenter) -> bool:
    """Returns whether this process passes images through the network: the first, or all of a sharded one."""
    return trainer.is_global_zero or segmenter.device_mesh is not None


def _parts(trainer: L.Trainer, pl_module: L.LightningModule) -> tuple[LesionSegmenter, LesionDataModule]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(pl_module, LesionSegmenter)
    assert isinstance(data, LesionDataModule)
    return pl_module, data
