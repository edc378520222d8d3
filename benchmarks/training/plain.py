"""The plain script: what most people write with segmentation_models_pytorch.

PIL decodes each image in each epoch, albumentations resizes, augments and normalises it, a DataLoader
collects the batches, and a float32 network in PyTorch's own memory layout is trained by AdamW. Validation
counts Dice and Jaccard of each image at its own size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
import yaml
from albumentations.pytorch import ToTensorV2
from hydra.utils import instantiate
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.training.work import (
    MEAN,
    STD,
    Result,
    Work,
    bce_dice,
    cost,
    peak_memory,
    rate,
    timed_loading,
    timed_steps,
    unet,
)

LIGHT = Path(__file__).resolve().parents[2] / "conf" / "augment" / "light.yaml"


def light() -> list[A.BasicTransform]:
    """Returns the transforms of skinseg's `augment=light`, read from its file."""
    transforms = yaml.safe_load(LIGHT.read_text(encoding="utf-8"))["transforms"]
    return [instantiate(node, _convert_="all") for node in transforms.values()]


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Images and masks as float32 tensors of shapes (3, size, size) and (1, size, size)."""

    def __init__(self, work: Work, side: str) -> None:
        self.images, self.masks = work.files(side)
        augment = light() if side == "train" else []
        self.transform = A.Compose(
            [A.Resize(work.size, work.size), *augment, A.Normalize(MEAN, STD), ToTensorV2()]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        image = np.asarray(Image.open(self.images[row]).convert("RGB"))
        changed = self.transform(image=image, mask=truth(self.masks[row]))
        return changed["image"], changed["mask"][None].float()


def truth(path: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Returns a mask of 0 and 1 at its own size."""
    return (np.asarray(Image.open(path).convert("L")) > 128).astype(np.uint8)


def loader(work: Work, side: str) -> DataLoader[tuple[Tensor, Tensor]]:
    """Returns the batches of a side."""
    return batches_of(work, Images(work, side), train=side == "train")


def batches_of(
    work: Work, dataset: Dataset[tuple[Tensor, Tensor]], *, train: bool
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Returns batches; those for training are shuffled."""
    return DataLoader(
        dataset,
        batch_size=work.batch,
        shuffle=train,
        drop_last=train,
        num_workers=work.workers,
        pin_memory=work.device == "cuda",
        persistent_workers=work.workers > 0,
        worker_init_fn=one_thread,
    )


def one_thread(_worker: int) -> None:
    """Keeps OpenCV's threads in several loader processes from competing with each other."""
    cv2.setNumThreads(0)


class Training:
    """Network, loss and optimizer."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.network = unet(work)
        self.loss = bce_dice()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=work.lr)

    def step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Trains on a batch and returns its loss."""
        images, masks = (tensor.to(self.work.device, non_blocking=True) for tensor in batch)
        loss = self.loss(self.network(images), masks)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Returns probabilities of shape (B, 1, size, size)."""
        return torch.sigmoid(self.network(images.to(self.work.device, non_blocking=True))).float()


def predictions(training: Training, batches: Any, masks: list[str]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields prediction and truth of each image at its own size, bool of shape (H, W)."""
    training.network.eval()
    row = 0
    for images, _ in batches:
        for probability in training.probabilities(images):
            target = torch.from_numpy(truth(masks[row]))
            native = nn.functional.interpolate(probability[None], size=target.shape, mode="bilinear")
            yield native[0, 0] >= 0.5, target.to(native.device) > 0
            row += 1
    training.network.train()


def mean_dice(training: Training, batches: Any, masks: list[str]) -> float:
    """Returns the mean Dice over images; Jaccard is counted on the way, as a script would."""
    scores = []
    for predicted, target in predictions(training, batches, masks):
        counts = smp.metrics.get_stats(predicted[None, None].long(), target[None, None].long(), mode="binary")
        smp.metrics.iou_score(*counts, zero_division=1.0)
        scores.append(smp.metrics.f1_score(*counts, zero_division=1.0).item())
    return float(np.mean(scores))


def predict(training: Training, work: Work, batches: Any) -> None:
    """Predicts masks at native size from files, without looking at a truth."""
    sizes = [Image.open(path).size[::-1] for path in work.files("val")[0]]
    training.network.eval()
    row = 0
    for images, _ in batches:
        for probability in training.probabilities(images):
            native = nn.functional.interpolate(probability[None], size=sizes[row], mode="bilinear")
            (native[0, 0] >= 0.5).cpu().numpy()
            row += 1
    training.network.train()


def run(work: Work) -> Result:
    """Measures speed."""
    training = Training(work)
    result = cost(training.network, work, lambda logits: training.loss(logits, torch.zeros_like(logits)))
    result |= timed_steps(work, loader(work, "train"), training.step) | peak_memory(work)
    images, masks = work.files("val")
    batches = loader(work, "val")
    result["validate_images_per_s"] = rate(work, len(images), lambda: mean_dice(training, batches, masks))
    result["predict_images_per_s"] = rate(work, len(images), lambda: predict(training, work, batches))
    result["load_images_per_s"] = timed_loading(work, loader(work, "train"))
    return result


def learn(work: Work) -> Result:
    """Trains for `epochs` passes; returns test Dice of the weights with the best validation Dice."""
    training = Training(work)
    batches, validation = loader(work, "train"), loader(work, "val")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(training.optimizer, work.epochs * len(batches))
    best, weights, losses = -1.0, training.network.state_dict(), []
    for _ in range(work.epochs):
        for batch in batches:
            losses.append(training.step(batch))
            schedule.step()
        dice = mean_dice(training, validation, work.files("val")[1])
        if dice > best:
            best, weights = dice, copy.deepcopy(training.network.state_dict())
    training.network.load_state_dict(weights)
    test = mean_dice(training, loader(work, "test"), work.files("test")[1])
    return {"val_dice": best, "test_dice": test, "losses": [float(loss) for loss in losses]}
