"""Mixing of a training batch's images with one another, after augmentation, on the device that trains.

Each image meets another one of its batch, all of them the one that is as many places further on. What is
drawn depends on (seed, epoch, the batch's rows) alone: it is the same after a resume, and differs between
ranks and batch sizes, as the batches do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skinseg.errors import SkinsegError

Mixed = tuple[Tensor, Tensor, float | None]
"""Images, masks and share, as `Mix` returns them."""

# On a CPU so many images at a time stay in the cache; measured beside 1, 4 and 16.
_CPU_IMAGES = 2
_COARSE = 32
"""Side of the masks on which a free place for a lesion is looked for, in pixels."""


class Mix(ABC):
    """Mixes a batch.

    Args:
        p: Probability that an image is mixed; see the kinds.

    Raises:
        SkinsegError: It is not in 0 to 1.
    """

    def __init__(self, p: float) -> None:
        self.p = self._within("p", p, 0, 1)

    def __call__(self, images: Tensor, masks: Tensor, *, rows: Sequence[int], epoch: int, seed: int) -> Mixed:
        """Mixes a batch, and leaves what it was given as it is.

        Args:
            images: uint8, shape (images, 3, height, width), RGB.
            masks: uint8, shape (images, 1, height, width), 0 or 1, on the same device.
            rows: Each image's row of the data set.
            epoch: 0 or above.
            seed: 0 or above.

        Returns:
            Images as they came in. Masks of 0 and 1, for `MixUp` of shape (images, 2, height, width): each
            image's own and that of the other one. For `MixUp` the share of the first in the image and in the
            loss; else None.
        """
        if len(images) < 2:
            return images, masks, None
        rng = np.random.default_rng(np.random.SeedSequence([seed, epoch, *rows]))
        places = int(rng.integers(1, len(images)))
        with torch.no_grad():
            return self.mix((images, masks), (images.roll(-places, 0), masks.roll(-places, 0)), rng)

    @abstractmethod
    def mix(
        self, batch: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor], rng: np.random.Generator
    ) -> Mixed:
        """Mixes images and masks with others of the same shapes."""

    def _within(self, name: str, value: float, least: float, most: float) -> float:
        if not least <= value <= most:
            raise SkinsegError(
                f"mix: {type(self).__name__}.{name}: found {value}, expected {least:g} to {most:g}."
            )
        return value


class CutMix(Mix):
    """Puts a box of another image, with its mask, in place of the same box (Yun et al., ICCV 2019).

    The box has the image's proportions, its area is a share from Beta(alpha, alpha), and what of it would lie
    beyond the border is cut off.

    Args:
        alpha: 1 draws all shares alike.
        p: Probability that an image is changed.
    """

    def __init__(self, alpha: float = 1.0, p: float = 0.5) -> None:
        super().__init__(p)
        self.alpha = self._within("alpha", alpha, 0.01, 100)

    def mix(
        self, batch: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor], rng: np.random.Generator
    ) -> Mixed:
        """Returns images with boxes of others."""
        images, masks = (tensor.clone() for tensor in batch)
        size = np.array(images.shape[2:])
        for row in range(len(images)):
            half = size * np.sqrt(rng.beta(self.alpha, self.alpha)) / 2
            centre = rng.uniform(0, size)
            (top, left), (bottom, right) = np.clip(np.round([centre - half, centre + half]), 0, size).astype(
                int
            )
            if rng.random() < self.p:
                box = (row, slice(None), slice(top, bottom), slice(left, right))
                images[box], masks[box] = others[0][box], others[1][box]
        return images, masks, None


class MixUp(Mix):
    """Blends each image with another one, and the losses of both masks alike (Zhang et al., ICLR 2018).

    The masks are not blended: most losses of segmentation take a pixel for lesion or for skin.

    Args:
        alpha: Of Beta(alpha, alpha), from which the first image's share is drawn, one for all of a batch.
        p: Probability that a batch is changed.
    """

    def __init__(self, alpha: float = 0.4, p: float = 0.5) -> None:
        super().__init__(p)
        self.alpha = self._within("alpha", alpha, 0.01, 100)

    def mix(
        self, batch: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor], rng: np.random.Generator
    ) -> Mixed:
        """Returns blends, both masks and the share of the first."""
        share = float(rng.beta(self.alpha, self.alpha))
        if rng.random() >= self.p:
            return *batch, None
        blend = torch.lerp(others[0].float(), batch[0].float(), share).round_().to(torch.uint8)
        return blend, torch.cat([batch[1], others[1]], dim=1), share


class CopyPaste(Mix):
    """Pastes the lesion of another image onto the skin (after Ghiasi et al., CVPR 2021).

    The lesion lands at a random place of the image in which it fits beside the lesion that is there, with a
    soft edge, and in the light of the image: channels are multiplied by the ratio of the skin around it
    there to the skin around it here. The mask is that of both lesions. An image stays as it is where the
    other has no lesion, where that touches the border of its image or is too large, and where there is no
    room.

    Args:
        largest: Largest lesion that is pasted, as a share of the image before `scale_range`.
        scale_range: Range of the factor of the lesion's size, at most 1.
        tries: Number of places that are looked at for room.
        p: Probability that an image is changed.
    """

    def __init__(
        self,
        largest: float = 0.3,
        scale_range: tuple[float, float] = (0.4, 1.0),
        tries: int = 8,
        p: float = 0.5,
    ) -> None:
        super().__init__(p)
        self.largest = self._within("largest", largest, 0, 1)
        low, high = scale_range
        self._within("scale_range[0]", low, 0.05, 1)
        self.scale_range = low, self._within("scale_range[1]", high, low, 1)
        self.tries = int(self._within("tries", tries, 1, 100))

    def mix(
        self, batch: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor], rng: np.random.Generator
    ) -> Mixed:
        """Returns images with a second lesion."""
        images, masks = (tensor.clone() for tensor in batch)
        numbers = rng.random((len(images), 2 + 2 * self.tries), np.float32)
        chosen = np.flatnonzero(numbers[:, 0] < self.p)
        step = _CPU_IMAGES if images.device.type == "cpu" else len(images)
        for start in range(0, len(chosen), step):
            part = chosen[start : start + step]
            drawn = torch.from_numpy(numbers[part, 1:]).to(images.device)
            rows = torch.from_numpy(part).to(images.device)
            images[rows], masks[rows] = self._paste(
                images[rows], masks[rows], others[0][rows], others[1][rows], drawn
            )
        return images, masks, None

    def _paste(
        self, images: Tensor, masks: Tensor, others: Tensor, lesions: Tensor, drawn: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pastes into each image, where it can be done.

        Args:
            images: As in `Mix`.
            masks: As in `Mix`.
            others: Images to take lesions from.
            lesions: Their masks.
            drawn: Shape (images, 1 + 2 tries), uniform in 0 to 1: size, then places.
        """
        count, skin, source = len(images), 1 - masks.float(), lesions.float()
        scale = self.scale_range[0] + (self.scale_range[1] - self.scale_range[0]) * drawn[:, :1]
        low, high = _box(lesions)
        # Centres of pixels on the border are nearer to it than the width of one.
        edge = 2 / torch.tensor(images.shape[:1:-1], device=images.device)
        can = ((low > edge - 1) & (high < 1 - edge)).all(dim=1)
        can &= source.mean(dim=(1, 2, 3)) <= self.largest
        reach = scale * (high - low) / 2
        centres = (reach - 1)[:, None] + 2 * (1 - reach)[:, None] * drawn[:, 1:].view(count, -1, 2)
        taken, coarse = (F.adaptive_max_pool2d(mask, _COARSE) for mask in (1 - skin, source))
        overlaps = [
            (taken * _moved(coarse, low, high, scale, centre)).sum(dim=(1, 2, 3))
            for centre in centres.unbind(1)
        ]
        best = torch.stack(overlaps, dim=1).argmin(dim=1)
        centre = centres[torch.arange(count, device=images.device), best]
        moved = _moved(torch.cat([others.float(), source], dim=1), low, high, scale, centre)
        pasted = (moved[:, 3:] >= 0.5).float()
        # The mean of the mask around a pixel falls from a half at the outline to 0 beyond it.
        soft, near = max(1, round(max(images.shape[2:]) / 50)), pasted
        for down, along in ((soft, 0), (0, soft)):
            near = F.avg_pool2d(near, (1 + 2 * down, 1 + 2 * along), 1, (down, along))
        share = (4 * near - 1).clamp_(0, 1)
        ring = ((near > 0) & (near < 0.25)).float()
        can &= ((near > 0) & (skin == 0)).sum(dim=(1, 2, 3)) == 0
        gains = (_mean(images, ring) / _mean(moved[:, :3], ring).clamp_min(1)).clamp(0.5, 2)
        lit = (moved[:, :3] * gains).clamp_(0, 255)
        here = can[:, None, None, None]
        changed = torch.lerp(images.float(), lit, share * here).round_().to(torch.uint8)
        return changed, torch.where(here & (pasted > 0), 1, masks)


def _box(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Returns x and y of a mask's least and greatest pixel, each (images, 2), from -1 to 1 over the frame."""
    low, high = [], []
    for axis in (2, 3):  # along which is looked, and so x first
        found = masks.amax(dim=(1, axis)) > 0
        size = found.shape[1]
        place = (2 * torch.arange(size, device=masks.device, dtype=torch.float32) + 1) / size - 1
        low.append(torch.where(found, place, 2).amin(dim=1))
        high.append(torch.where(found, place, -2).amax(dim=1))
    return torch.stack(low, dim=1), torch.stack(high, dim=1)


def _moved(images: Tensor, low: Tensor, high: Tensor, scale: Tensor, centre: Tensor) -> Tensor:
    """Returns float images scaled so that the middle of each box lands at its centre, in units of `_box`."""
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale[:, 0]
    theta[:, :, 2] = (low + high) / 2 - centre / scale
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _mean(pictures: Tensor, weights: Tensor) -> Tensor:
    """Returns weighted means of shape (images, 3, 1, 1)."""
    return (pictures * weights).sum(dim=(2, 3), keepdim=True) / weights.sum(
        dim=(2, 3), keepdim=True
    ).clamp_min(1)
