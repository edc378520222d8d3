"""Losses that price a mistake by its distance from the outline of the mask.

They take and return what the losses of `skinseg.models.losses` do. The distances are made on the processor,
batch by batch, so that augmented masks have their own; a GPU waits for them.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from skinseg.models.losses import Dice, aligned, check_positive, check_weights, wrong_logits


def boundary_distances(masks: Tensor) -> Tensor:
    """Measures how far each pixel is from the outline of its mask.

    The outline runs between the pixels: the distance is that to the centre of the nearest pixel on the other
    side, less half a pixel. It is exact (OpenCV's precise transform), and without the sign that tells inside
    from outside.

    Args:
        masks: Tensor of shape (B, 1, H, W) of any dtype that holds 0 and 1.

    Returns:
        float32 tensor of the same shape, on the same device: shares of the image's diagonal, in [0, 1).
        All 0 for a mask that is empty or full, which has no outline.
    """
    inside = masks.detach().to("cpu", torch.uint8).numpy()
    distances = np.zeros(inside.shape, np.float32)
    for image, distance in zip(inside[:, 0], distances[:, 0], strict=True):
        if 0 < np.count_nonzero(image) < image.size:
            for side in (image, 1 - image):
                distance += cv2.distanceTransform(side, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            distance -= 0.5
    distances /= math.hypot(*inside.shape[-2:])
    return torch.from_numpy(distances).to(masks.device)


class Boundary(nn.Module):
    """The Dice loss plus alpha times the boundary loss (Kervadec et al., MIDL 2019, arXiv:1812.07032).

    The boundary loss is the mean over all pixels of p d, where d is the signed distance from the mask's
    outline, negative inside. Here its least value, the mean of m d, is taken off, which changes no slope and
    makes it 0 for a perfect prediction: the mean of |d| |p - m|. A mask without an outline has d = 0 and is
    left to the Dice loss.

    In the paper distances are in pixels and alpha starts at 0.01. Here they are shares of the image's
    diagonal, so that alpha does not depend on the size of the input: the paper's 0.01 is 3.6 for 256x256
    pixels. The paper also raises alpha from epoch to epoch, at the region loss's expense; here it is fixed.

    Args:
        alpha: Weight of the boundary loss, >= 0.
        smooth: As in `skinseg.models.losses.Tversky`.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(self, alpha: float = 4.0, smooth: float = 1.0) -> None:
        super().__init__()
        check_weights(alpha=alpha, dice=1.0)
        self.alpha = alpha
        self.dice = Dice(smooth)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the loss, in [0, 1 + alpha), of logits and masks of shape (B, 1, H, W)."""
        mistakes = torch.sigmoid(wrong_logits(*aligned(logits, masks)))
        boundary = (boundary_distances(masks) * mistakes).mean()
        loss: Tensor = self.dice(logits, masks) + self.alpha * boundary
        return loss


class Hausdorff(nn.Module):
    """The Dice loss plus a surrogate of the Hausdorff distance (Karimi, Salcudean, TMI 2019).

    The paper's variant of distance transforms: the mean over all pixels of
    (p - m) ** 2 (d_m ** exponent + d_p ** exponent), where d_m is the distance from the outline of the mask
    and d_p that from the outline of the prediction, p >= 0.5, through which no slope goes. An empty or full
    mask has no outline and its distances are 0.

    In the paper (arXiv:1904.10030) distances are in pixels and the weight between the terms is set anew after
    each epoch, so that both count the same. Here distances are shares of the image's diagonal and the weight
    is fixed.

    Args:
        weight: Weight of the distance term, >= 0; with 100 the terms are of similar size where p is 0.5.
        exponent: The paper's alpha, > 0; the larger, the more the farthest mistakes count. 2 in the paper.
        smooth: As in `skinseg.models.losses.Tversky`.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(self, weight: float = 100.0, exponent: float = 2.0, smooth: float = 1.0) -> None:
        super().__init__()
        check_weights(weight=weight, dice=1.0)
        check_positive("exponent", exponent)
        self.weight = weight
        self.exponent = exponent
        self.dice = Dice(smooth)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the loss, in [0, 1 + 2 weight), of logits and masks of shape (B, 1, H, W)."""
        mistakes = torch.sigmoid(wrong_logits(*aligned(logits, masks)))
        outlines = (boundary_distances(masks), boundary_distances(logits >= 0))
        distances = sum(outline.pow(self.exponent) for outline in outlines)
        loss: Tensor = self.dice(logits, masks) + self.weight * (distances * mistakes.square()).mean()
        return loss
