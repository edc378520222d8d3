"""The hand-tuned script: the plain one, sped up by somebody who knows how.

Images are decoded and resized once and kept in memory as uint8; a batch is augmented from there by the same
albumentations transforms and normalised on the device. The network runs in the memory layout NHWC under
bfloat16 autocast, and AdamW is the fused one.
"""

from __future__ import annotations

import albumentations as A
import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.training import plain
from benchmarks.training.work import (
    MEAN,
    STD,
    Result,
    Work,
    peak_memory,
    rate,
    timed_loading,
    timed_steps,
)


class CachedImages(Dataset[tuple[Tensor, Tensor]]):
    """Images and masks as uint8 tensors of shapes (3, size, size) and (1, size, size)."""

    def __init__(self, work: Work, side: str) -> None:
        images, masks = work.files(side)
        self._images = np.empty((len(images), work.size, work.size, 3), np.uint8)
        self._masks = np.empty((len(images), work.size, work.size), np.uint8)
        shape = (work.size, work.size)
        for row, (image, mask) in enumerate(zip(images, masks, strict=True)):
            pixels = np.asarray(Image.open(image).convert("RGB"))
            self._images[row] = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA)
            self._masks[row] = cv2.resize(plain.truth(mask), shape, interpolation=cv2.INTER_NEAREST)
        self._transform = A.Compose(plain.light() if side == "train" else [])

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        changed = self._transform(image=self._images[row], mask=self._masks[row])
        image = np.ascontiguousarray(changed["image"].transpose(2, 0, 1))
        return torch.from_numpy(image), torch.from_numpy(changed["mask"])[None]


class TunedTraining(plain.Training):
    """Network, loss and optimizer."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.network = self.network.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=work.lr, fused=True)
        self._mean = torch.tensor(MEAN, device=work.device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(STD, device=work.device).view(1, 3, 1, 1) * 255
        self._reduced = work.precision == "bf16"

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits for uint8 images."""
        pixels = images.to(self.work.device, non_blocking=True).float()
        normalised = ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.work.device, torch.bfloat16, enabled=self._reduced):
            return self.network(normalised)

    def step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Trains on a batch and returns its loss."""
        images, masks = batch
        loss = self.loss(self.forward(images).float(), masks.to(self.work.device, non_blocking=True).float())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Returns probabilities of shape (B, 1, size, size)."""
        return torch.sigmoid(self.forward(images).float())


def run(work: Work) -> Result:
    """Measures speed. Prediction is left out: new images are in no cache, as in the plain script."""
    training = TunedTraining(work)
    cached = CachedImages(work, "train")
    result = timed_steps(work, plain.batches_of(work, cached, train=True), training.step) | peak_memory(work)
    masks = work.files("val")[1]
    batches = plain.batches_of(work, CachedImages(work, "val"), train=False)
    result["validate_images_per_s"] = rate(
        work, len(masks), lambda: plain.mean_dice(training, batches, masks)
    )
    result["load_images_per_s"] = timed_loading(work, plain.batches_of(work, cached, train=True))
    return result
