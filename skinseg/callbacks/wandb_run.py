"""What of a training is logged to Weights & Biases beside its metrics."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from skinseg.callbacks.scores import score_table
from skinseg.tracking.logger import runs, wandb_logger

__all__ = ["LogCheckpoint", "LogScoreTable", "wandb_logger"]  # by which older configurations know it


class LogScoreTable(Callback):
    """Logs the test subset's per-image scores, and a table of the worst images with their photographs.

    Args:
        images: Number of the worst images that are shown.
    """

    def __init__(self, images: int = 16) -> None:
        self.images = images

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs both tables."""
        found = runs(trainer.loggers) if trainer.is_global_zero else []
        if not found:
            return
        import wandb

        data = trainer.datamodule  # type: ignore[attr-defined]
        table = score_table(pl_module, data, "test")  # type: ignore[arg-type]
        worst = table.sort_values("dice").head(self.images)
        files = {file.image_id: file for file in data.dataset("test").files}
        photographs = [wandb.Image(files[image_id].read_photograph()) for image_id in worst["image_id"]]
        for run in found:
            run.log(
                {
                    "test/scores": wandb.Table(dataframe=table),
                    "test/worst": wandb.Table(
                        columns=["image", *worst.columns],
                        data=[[p, *row] for p, row in zip(photographs, worst.values.tolist(), strict=True)],
                    ),
                    "trainer/global_step": trainer.global_step,
                }
            )


class LogCheckpoint(Callback):
    """Keeps the best checkpoint as an artifact of the run.

    Args:
        path: The checkpoint.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the file, online at once, offline with the next sync."""
        found = runs(trainer.loggers) if trainer.is_global_zero and self.path.is_file() else []
        for run in found:
            import wandb

            artifact = wandb.Artifact(f"checkpoint-{run.id}", type="model")
            artifact.add_file(str(self.path), name="best.ckpt")
            run.log_artifact(artifact, aliases=["best"])
