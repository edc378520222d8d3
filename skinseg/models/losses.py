"""Losses for binary masks, each per image and then the mean over the batch.

Every loss takes logits of shape (B, 1, H, W) of any floating dtype and masks of the same shape that hold 0
and 1 in any dtype, and returns a scalar. It computes in float32 at least, autocast or not: sums over the
pixels of an image overflow in float16, and autocast lowers none of the operations used here. The scalar is
float64 for float64 logits, else float32.

In the formulas tp, fp and fn are the soft counts of an image: the sums over its pixels of p m, p (1 - m) and
(1 - p) m, where p is the sigmoid of the logit and m the mask. `segmentation_models_pytorch` has losses of the
same names, but its Dice, Jaccard and Tversky count over the pixels of the whole batch, so that small lesions
hardly matter, and are 0 for an empty mask whatever is predicted.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BCE(nn.Module):
    """Binary cross-entropy: the mean over all pixels of -m log p - (1 - m) log(1 - p)."""

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the loss, in [0, inf), of logits and masks of shape (B, 1, H, W)."""
        logits, masks = aligned(logits, masks)
        return F.binary_cross_entropy_with_logits(logits, masks)


class Tversky(nn.Module):
    """1 - (tp + smooth) / (tp + alpha fp + beta fn + smooth) (Salehi, Erdogmus, Gholipour, MLMI 2017).

    Args:
        alpha: Weight of false positives, >= 0.
        beta: Weight of false negatives, >= 0; above alpha it favours sensitivity.
        smooth: In pixels, > 0. It defines the loss of an empty mask, which falls to 0 as the prediction
            empties.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(self, alpha: float = 0.3, beta: float = 0.7, smooth: float = 1.0) -> None:
        super().__init__()
        check_weights(alpha=alpha, beta=beta)
        check_positive("smooth", smooth)
        self.alpha = alpha
        self.beta = beta
        self.smooth = smooth

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the loss, in [0, 1), of logits and masks of shape (B, 1, H, W)."""
        return self.per_image(logits, masks).mean()

    def per_image(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the loss of each image, shape (B,), in [0, 1)."""
        tp, fp, fn = soft_counts(logits, masks)
        # One minus the fraction, as a fraction: near a perfect prediction the difference would round away.
        mistakes = self.alpha * fp + self.beta * fn
        return mistakes / (tp + mistakes + self.smooth)


class Dice(Tversky):
    """1 - 2 (tp + smooth) / (2 tp + fp + fn + 2 smooth) (Milletari, Navab, Ahmadi, 3DV 2016).

    Args:
        smooth: As in `Tversky`, of which this is the case alpha = beta = 0.5.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__(0.5, 0.5, smooth)


class Jaccard(Tversky):
    """1 - (tp + smooth) / (tp + fp + fn + smooth) (Rahman, Wang, ISVC 2016).

    Args:
        smooth: As in `Tversky`, of which this is the case alpha = beta = 1.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__(1.0, 1.0, smooth)


class FocalTversky(nn.Module):
    """The Tversky loss of each image to the power 1 / gamma (Abraham, Khan, ISBI 2019).

    In the paper alpha belongs to the false negatives; here it has the meaning it has in `Tversky`.

    Args:
        alpha: Weight of false positives, >= 0.
        beta: Weight of false negatives, >= 0.
        gamma: > 0. Above 1, poorly segmented images weigh less and well segmented ones more; 4/3 in the
            paper.
        smooth: As in `Tversky`.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self, alpha: float = 0.3, beta: float = 0.7, gamma: float = 4 / 3, smooth: float = 1.0
    ) -> None:
        super().__init__()
        check_positive("gamma", gamma)
        self.tversky = Tversky(alpha, beta, smooth)
        self.gamma = gamma

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the loss, in (0, 1), of logits and masks of shape (B, 1, H, W)."""
        # The root has no finite slope at 0, which a perfect image reaches in float32.
        losses = self.tversky.per_image(logits, masks).clamp_min(1e-6)
        return losses.pow(1 / self.gamma).mean()


class BCEDice(nn.Module):
    """A weighted sum of binary cross-entropy and the Dice loss.

    Args:
        bce_weight: Weight of the cross-entropy, >= 0.
        dice_weight: Weight of the Dice loss, >= 0.
        smooth: As in `Tversky`.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(self, bce_weight: float = 1.0, dice_weight: float = 1.0, smooth: float = 1.0) -> None:
        super().__init__()
        check_weights(bce_weight=bce_weight, dice_weight=dice_weight)
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight
        self.bce = BCE()
        self.dice = Dice(smooth)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the loss, in [0, inf), of logits and masks of shape (B, 1, H, W)."""
        loss: Tensor = self.bce_weight * self.bce(logits, masks) + self.dice_weight * self.dice(logits, masks)
        return loss


class Focal(nn.Module):
    """Cross-entropy in which pixels that are already right weigh less (Lin et al., ICCV 2017).

    The mean over all pixels of -(1 - q) ** gamma log q, where q is the probability of the right answer: p on
    lesion, 1 - p on skin.

    Args:
        alpha: Weight of lesion pixels, in (0, 1); skin pixels weigh 1 - alpha. None: both weigh 1.
        gamma: How much less, >= 0; 0 is the plain cross-entropy.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(self, alpha: float | None = None, gamma: float = 2.0) -> None:
        super().__init__()
        if alpha is not None and not 0 < alpha < 1:
            raise ValueError(f"alpha={alpha}: expected a weight in (0, 1), or null.")
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma={gamma}: expected a number >= 0.")
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the loss, in [0, inf), of logits and masks of shape (B, 1, H, W)."""
        logits, masks = aligned(logits, masks)
        wrong = wrong_logits(logits, masks)
        loss = torch.exp(self.gamma * F.logsigmoid(wrong)) * F.softplus(wrong)
        if self.alpha is not None:
            loss = loss * (self.alpha * masks + (1 - self.alpha) * (1 - masks))
        return loss.mean()


class UnifiedFocal(nn.Module):
    """The asymmetric unified focal loss (Yeung et al., Comput. Med. Imaging Graph. 2022, arXiv:2102.04525).

    A focal cross-entropy and a focal Tversky loss, both with exponents that differ between lesion and skin:

        lambda F + (1 - lambda) T
        F = mean over pixels of -delta m log p - (1 - delta) (1 - m) p ** gamma log(1 - p)
        T = (1 - TI(skin)) + (1 - TI(lesion)) ** (1 - gamma)

    In the modified Tversky index TI of a class, delta weighs the pixels of the class that were missed and
    1 - delta those that were taken for it. So gamma lowers the weight of skin that is already right, and
    raises that of an image's lesion the better it is segmented. lambda, delta and gamma are the paper's; the
    defaults are those it recommends.

    Args:
        weight: The paper's lambda, in [0, 1].
        delta: The paper's delta, in (0, 1); above 0.5 it favours sensitivity.
        gamma: The paper's gamma, in [0, 1).
        smooth: As in `Tversky`.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self, weight: float = 0.5, delta: float = 0.6, gamma: float = 0.5, smooth: float = 1.0
    ) -> None:
        super().__init__()
        check_share("weight", weight)
        if not 0 < delta < 1:
            raise ValueError(f"delta={delta}: expected a weight in (0, 1).")
        if not 0 <= gamma < 1:
            raise ValueError(f"gamma={gamma}: expected a number in [0, 1).")
        self.weight = weight
        self.delta = delta
        self.gamma = gamma
        self.tversky = Tversky(1 - delta, delta, smooth)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the loss, in [0, inf), of logits and masks of shape (B, 1, H, W)."""
        logits, masks = aligned(logits, masks)
        # As in the focal loss; no pixel of lesion is made to weigh less.
        easy = torch.exp(self.gamma * (1 - masks) * F.logsigmoid(logits))
        price = self.delta * masks + (1 - self.delta) * (1 - masks)
        pixels = (price * easy * F.softplus(wrong_logits(logits, masks))).mean()
        # The power has no finite slope at 0, which a perfect image reaches in float32.
        lesion = self.tversky.per_image(logits, masks).clamp_min(1e-10).pow(1 - self.gamma)
        skin = self.tversky.per_image(-logits, 1 - masks)
        return self.weight * pixels + (1 - self.weight) * (lesion + skin).mean()


class ThresholdJaccard(nn.Module):
    """A smooth surrogate of the ISIC 2018 Challenge's score: the Jaccard index, or 0 where it is below 0.65.

    Of our own design, not from a publication. With J the soft Jaccard index of an image,

        1 - J (1 - weight + weight g(J))
        g(J) = s((J - threshold) / temperature) / s((1 - threshold) / temperature)

    where s is the sigmoid: g passes from near 0 to 1 around the threshold. It is the Jaccard loss plus an
    extra pull on images near the threshold, where a little more overlap gains the whole index. The score's
    step itself, and g alone, would leave an image of little overlap without a slope to learn from; the share
    1 - weight of the plain index gives it one.

    Args:
        weight: Share of the index that has to pass the threshold, in [0, 1]; 0 is `Jaccard`.
        threshold: In (0, 1); the Challenge's is 0.65.
        temperature: Of the sigmoid, in units of the index, > 0; the smaller, the closer to a step.
        smooth: As in `Tversky`.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self, weight: float = 0.5, threshold: float = 0.65, temperature: float = 0.1, smooth: float = 1.0
    ) -> None:
        super().__init__()
        check_share("weight", weight)
        if not 0 < threshold < 1:
            raise ValueError(f"threshold={threshold}: expected a Jaccard index in (0, 1).")
        check_positive("temperature", temperature)
        self.weight = weight
        self.threshold = threshold
        self.temperature = temperature
        self.jaccard = Jaccard(smooth)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the loss, in [0, 1), of logits and masks of shape (B, 1, H, W)."""
        lacking = self.jaccard.per_image(logits, masks)
        above = (1 - self.threshold - lacking) / self.temperature
        most = torch.full_like(above, (1 - self.threshold) / self.temperature)
        # 1 - g, which near a perfect prediction would round away.
        withheld = -torch.expm1(F.logsigmoid(above) - F.logsigmoid(most))
        return (lacking + self.weight * (1 - lacking) * withheld).mean()


class Lovasz(nn.Module):
    """The Lovász hinge, a convex surrogate of the Jaccard index of each image (Berman et al., CVPR 2018).

    Of an empty mask it is the largest hinge error.
    """

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the loss, in [0, inf), of logits and masks of shape (B, 1, H, W)."""
        logits, masks = (tensor.flatten(1) for tensor in aligned(logits, masks))
        errors, order = (1 - logits * (2 * masks - 1)).sort(dim=1, descending=True)
        # Counted in integers: CUDA has no deterministic cumulative sum of floats.
        truth = masks.gather(1, order).int()
        positives = truth.sum(dim=1, keepdim=True)
        intersection = positives - truth.cumsum(dim=1)
        union = positives + (1 - truth).cumsum(dim=1)
        jaccard = 1 - intersection.to(errors.dtype) / union
        steps = torch.cat([jaccard[:, :1], jaccard.diff(dim=1)], dim=1)
        return (F.relu(errors) * steps).sum(dim=1).mean()


def aligned(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Returns both in one dtype, float32 or float64.

    Raises:
        ValueError: They differ in shape.
    """
    if logits.shape != masks.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and masks {tuple(masks.shape)} differ in shape.")
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits, masks.to(logits.dtype)


def soft_counts(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns soft true positive, false positive and false negative pixels of each image, shape (B,)."""
    logits, masks = (tensor.flatten(1) for tensor in aligned(logits, masks))
    lesion = torch.sigmoid(logits)
    # Not the complement 1 - lesion, which rounds to 0 long before the probability of skin does.
    skin = torch.sigmoid(-logits)
    return (lesion * masks).sum(dim=1), (lesion * (1 - masks)).sum(dim=1), (skin * masks).sum(dim=1)


def wrong_logits(logits: Tensor, masks: Tensor) -> Tensor:
    """Returns each pixel's logit of the wrong answer, of tensors that `aligned` returned.

    Its sigmoid is the probability of the wrong answer, its softplus the cross-entropy. Both keep their digits
    and have a finite slope where the probability of the right answer rounds to 0 or 1.
    """
    return logits * (1 - 2 * masks)


def check_positive(name: str, value: float) -> None:
    """Raises a ValueError unless the argument is a finite number above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value}: expected a number > 0.")


def check_share(name: str, value: float) -> None:
    """Raises a ValueError unless the argument is a number from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value}: expected a share from 0 to 1.")


def check_weights(**weights: float) -> None:
    """Raises a ValueError unless the weights are finite, none is below 0 and one is above."""
    if not (all(0 <= weight < math.inf for weight in weights.values()) and any(weights.values())):
        found = ", ".join(f"{name}={weight}" for name, weight in weights.items())
        raise ValueError(f"{found}: expected weights >= 0, not all 0.")
