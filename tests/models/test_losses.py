"""Each loss against its formula in NumPy, at its limits, and as something to minimise."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Train
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from skinseg.config.compose import config_dir
from skinseg.models import boundary_losses, losses, robust_losses
from skinseg.models.boundary_losses import Boundary, Hausdorff, boundary_distances
from skinseg.models.losses import (
    BCE,
    BCEDice,
    Dice,
    Focal,
    FocalTversky,
    Jaccard,
    Lovasz,
    ThresholdJaccard,
    Tversky,
    UnifiedFocal,
)
from skinseg.models.robust_losses import GeneralisedCrossEntropy, SymmetricCrossEntropy

LOSSES: dict[str, Callable[[], nn.Module]] = {
    "bce": BCE,
    "bce_dice": BCEDice,
    "boundary": Boundary,
    "dice": Dice,
    "focal": Focal,
    "focal_alpha": lambda: Focal(alpha=0.3),
    "focal_root": lambda: Focal(gamma=0.5),
    "focal_tversky": FocalTversky,
    "generalised_cross_entropy": GeneralisedCrossEntropy,
    "hausdorff": Hausdorff,
    "jaccard": Jaccard,
    "lovasz": Lovasz,
    "symmetric_cross_entropy": SymmetricCrossEntropy,
    "threshold_jaccard": ThresholdJaccard,
    "tversky": Tversky,
    "unified_focal": UnifiedFocal,
}
OVERLAP = ("dice", "jaccard", "tversky", "focal_tversky", "threshold_jaccard")
every_loss = pytest.mark.parametrize("name", LOSSES)


def discs(*radii: float, size: int = 16) -> Tensor:
    """uint8 masks of shape (B, 1, size, size)."""
    along = torch.arange(size) - (size - 1) / 2
    distance = (along[:, None] ** 2 + along[None, :] ** 2).sqrt()
    return torch.stack([distance[None] <= radius for radius in radii]).to(torch.uint8)


def random_logits(masks: Tensor, seed: int = 0) -> Tensor:
    return 3 * torch.randn(masks.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def right_logits(masks: Tensor, margin: float) -> Tensor:
    return margin * (2 * masks.double() - 1)


def tversky_by_hand(p: NDArray[np.float64], m: NDArray[np.float64], alpha: float, beta: float) -> float:
    tp = (p * m).sum()
    return float(1 - (tp + 1) / (tp + alpha * (p * (1 - m)).sum() + beta * ((1 - p) * m).sum() + 1))


def dice_by_hand(p: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    return float(1 - (2 * (p * m).sum() + 2) / (p.sum() + m.sum() + 2))


def jaccard_by_hand(p: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    both = (p * m).sum()
    return float(1 - (both + 1) / (p.sum() + m.sum() - both + 1))


def bce_by_hand(p: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    return float(-(m * np.log(p) + (1 - m) * np.log(1 - p)).mean())


def focal_by_hand(p: NDArray[np.float64], m: NDArray[np.float64], alpha: float, gamma: float) -> float:
    q = np.where(m == 1, p, 1 - p)
    return float((np.where(m == 1, alpha, 1 - alpha) * -((1 - q) ** gamma) * np.log(q)).mean())


def distances_by_hand(m: NDArray[np.float64]) -> NDArray[np.float64]:
    """From each pixel to the nearest of the other side, less half a pixel, as a share of the diagonal."""
    m = m[0]
    places = np.argwhere(m >= 0)
    lesion = m.flatten() == 1
    far = np.zeros(m.size)
    if 0 < lesion.sum() < m.size:
        for index, place in enumerate(places):
            others = places[lesion != lesion[index]]
            far[index] = np.sqrt(((others - place) ** 2).sum(axis=1).min()) - 0.5
    return far.reshape(1, *m.shape) / np.hypot(*m.shape)


def boundary_by_hand(p: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    signed = distances_by_hand(m) * (1 - 2 * m)
    return float((p * signed).mean() - (m * signed).mean())


def hausdorff_by_hand(p: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    weights = distances_by_hand(m) ** 2 + distances_by_hand((p >= 0.5).astype(float)) ** 2
    return float(((p - m) ** 2 * weights).mean())


def unified_by_hand(p: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    focal = -0.6 * m * np.log(p) - 0.4 * (1 - m) * p**0.5 * np.log(1 - p)
    lesion, skin = tversky_by_hand(p, m, 0.4, 0.6), tversky_by_hand(1 - p, 1 - m, 0.4, 0.6)
    return float(0.5 * focal.mean() + 0.5 * (skin + lesion**0.5))


def threshold_by_hand(p: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    jaccard = 1 - jaccard_by_hand(p, m)
    gate = (1 + np.exp(-(1 - 0.65) / 0.1)) / (1 + np.exp(-(jaccard - 0.65) / 0.1))
    return float(1 - jaccard * (0.5 + 0.5 * gate))


def symmetric_by_hand(p: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    """Cross-entropy of mask and prediction, and with the two changing places."""
    log_m, log_skin = np.where(m == 1, 0, -4), np.where(m == 0, 0, -4)
    return 0.1 * bce_by_hand(p, m) - float((p * log_m + (1 - p) * log_skin).mean())


def generalised_by_hand(p: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    return float(((1 - np.where(m == 1, p, 1 - p) ** 0.7) / 0.7).mean())


BY_HAND: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], float]] = {
    "bce": bce_by_hand,
    "bce_dice": lambda p, m: bce_by_hand(p, m) + dice_by_hand(p, m),
    "boundary": lambda p, m: dice_by_hand(p, m) + 4 * boundary_by_hand(p, m),
    "dice": dice_by_hand,
    "focal": lambda p, m: 2 * focal_by_hand(p, m, 0.5, 2),
    "focal_alpha": lambda p, m: focal_by_hand(p, m, 0.3, 2),
    "focal_root": lambda p, m: 2 * focal_by_hand(p, m, 0.5, 0.5),
    "focal_tversky": lambda p, m: tversky_by_hand(p, m, 0.3, 0.7) ** 0.75,
    "generalised_cross_entropy": generalised_by_hand,
    "hausdorff": lambda p, m: dice_by_hand(p, m) + 100 * hausdorff_by_hand(p, m),
    "jaccard": jaccard_by_hand,
    "symmetric_cross_entropy": symmetric_by_hand,
    "threshold_jaccard": threshold_by_hand,
    "tversky": lambda p, m: tversky_by_hand(p, m, 0.3, 0.7),
    "unified_focal": unified_by_hand,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_formula(name: str) -> None:
    masks = discs(2, 5, 0, 20)
    logits = random_logits(masks)
    images = zip(torch.sigmoid(logits).numpy(), masks.double().numpy(), strict=True)
    expected = np.mean([BY_HAND[name](p, m) for p, m in images])
    # Distances are float32 whatever the logits are.
    digits = 1e-6 if name in ("boundary", "hausdorff") else 1e-9
    assert LOSSES[name]()(logits, masks).item() == pytest.approx(expected, rel=digits)
    assert LOSSES[name]()(logits.float(), masks).item() == pytest.approx(expected, rel=1e-5)


def test_weights_of_the_sum() -> None:
    masks = discs(2, 5)
    logits = random_logits(masks)
    expected = 0.2 * BCE()(logits, masks) + 3 * Dice(smooth=7)(logits, masks)
    assert torch.allclose(BCEDice(bce_weight=0.2, dice_weight=3, smooth=7)(logits, masks), expected)


@pytest.mark.parametrize(
    ("loss", "mistakes", "power"),
    [
        (Dice(smooth=7), 0.5 * 128, 1),
        (BCEDice(bce_weight=0, smooth=7), 0.5 * 128, 1),
        (Jaccard(smooth=7), 128, 1),
        (Tversky(alpha=0.2, beta=0.6, smooth=7), 0.2 * 128, 1),
        (FocalTversky(alpha=0.2, beta=0.6, gamma=2, smooth=7), 0.2 * 128, 0.5),
        (ThresholdJaccard(weight=0, smooth=7), 128, 1),
        (Boundary(alpha=0, smooth=7), 0.5 * 128, 1),
        (Hausdorff(weight=0, smooth=7), 0.5 * 128, 1),
    ],
)
def test_smooth_is_in_pixels(loss: nn.Module, mistakes: float, power: float) -> None:
    undecided = torch.zeros(1, 1, 16, 16)  # half of each of 256 pixels is a false positive
    assert loss(undecided, discs(0)).item() == pytest.approx((mistakes / (mistakes + 7)) ** power)


@every_loss
def test_a_batch_is_the_mean_of_its_images(name: str) -> None:
    masks = discs(1, 3, 7, 0, 20)
    logits = random_logits(masks)
    loss = LOSSES[name]()
    alone = torch.stack([loss(logits[i : i + 1], masks[i : i + 1]) for i in range(len(masks))])
    assert alone.std() > 0.01  # images that differ, or pooling them would pass
    assert torch.allclose(loss(logits, masks), alone.mean(), rtol=1e-12)


def test_limits_of_one_another() -> None:
    masks = discs(2, 5, 0)
    logits = random_logits(masks)
    tversky = Tversky(alpha=0.2, beta=0.6)(logits, masks)
    assert torch.equal(Tversky(alpha=0.5, beta=0.5)(logits, masks), Dice()(logits, masks))
    assert torch.equal(Tversky(alpha=1, beta=1)(logits, masks), Jaccard()(logits, masks))
    assert torch.equal(FocalTversky(alpha=0.2, beta=0.6, gamma=1)(logits, masks), tversky)
    assert torch.allclose(Focal(gamma=0)(logits, masks), BCE()(logits, masks))
    assert torch.allclose(2 * Focal(alpha=0.5)(logits, masks), Focal()(logits, masks))
    assert torch.equal(ThresholdJaccard(weight=0)(logits, masks), Jaccard()(logits, masks))
    pixels = UnifiedFocal(weight=1, delta=0.5, gamma=0)(logits, masks)
    assert torch.allclose(2 * pixels, BCE()(logits, masks))
    both = Dice()(logits, masks) + Dice()(-logits, 1 - masks)
    assert torch.allclose(UnifiedFocal(weight=0, delta=0.5, gamma=0)(logits, masks), both)
    symmetric = SymmetricCrossEntropy(alpha=1, beta=0)(logits, masks)
    assert torch.allclose(symmetric, BCE()(logits, masks))
    assert torch.allclose(GeneralisedCrossEntropy(q=1e-6)(logits, masks), BCE()(logits, masks), rtol=1e-4)
    absolute = (torch.sigmoid(logits) - masks).abs().mean()
    assert torch.allclose(GeneralisedCrossEntropy(q=1)(logits, masks), absolute)


def test_alpha_and_beta_price_their_own_mistake() -> None:
    small, large = discs(3), discs(6)
    wide, narrow = right_logits(large, 20), right_logits(small, 20)
    dear_positives, dear_negatives = Tversky(alpha=0.9, beta=0.1), Tversky(alpha=0.1, beta=0.9)
    assert dear_positives(wide, small) > dear_negatives(wide, small)
    assert dear_positives(narrow, large) < dear_negatives(narrow, large)


def test_focal_alpha_weighs_lesion() -> None:
    masks = discs(8)
    missed = right_logits(torch.zeros_like(masks), 3)  # all mistakes are on lesion
    assert Focal(alpha=0.9)(missed, masks) > 5 * Focal(alpha=0.1)(missed, masks)


def test_focal_tversky_gamma_favours_good_images() -> None:
    masks = discs(5)
    good, poor = right_logits(masks, 2), right_logits(masks, -2)

    def slope(loss: nn.Module, logits: Tensor) -> Tensor:
        logits = logits.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(logits, masks), logits)
        return gradient.abs().sum()

    plain, focal = FocalTversky(gamma=1), FocalTversky(gamma=2)
    assert slope(focal, good) / slope(focal, poor) > 1.5 * slope(plain, good) / slope(plain, poor)


@every_loss
def test_perfect_and_inverted(name: str) -> None:
    masks = discs(5, 7)
    loss = LOSSES[name]()
    assert 0 <= loss(right_logits(masks, 50).float(), masks) < 1e-4
    inverted = loss(right_logits(masks, -50).float(), masks)
    if name in OVERLAP:
        assert 0.97 < inverted < 1
    elif name == "lovasz":
        assert inverted == pytest.approx(51)  # the hinge of every pixel
    elif name == "focal_alpha":
        assert 0.3 * 50 < inverted < 0.7 * 50
    elif name == "unified_focal":
        assert 0.5 * 0.4 * 50 < inverted < 0.5 * 0.6 * 50 + 1
    elif name in ("boundary", "hausdorff"):
        far = boundary_distances(masks)  # those of mask and prediction, whose outlines are the same
        most = 4 * far.mean() if name == "boundary" else 200 * far.square().mean()
        assert inverted == pytest.approx(1 + most.item(), abs=0.02)
    else:
        most_of = {"bce_dice": 51, "symmetric_cross_entropy": 9, "generalised_cross_entropy": 1 / 0.7}
        assert inverted == pytest.approx(most_of.get(name, 50), abs=0.03)


@pytest.mark.parametrize("name", OVERLAP)
def test_an_empty_mask_asks_for_an_empty_prediction(name: str) -> None:
    empty = discs(0)
    shown = [LOSSES[name]()(right_logits(discs(radius), 20), empty).item() for radius in (0, 1, 3, 20)]
    assert shown == sorted(shown)
    assert shown[0] < 1e-3
    assert shown[-1] > 0.95


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("margin", [1e4, 0.0, -1e4])
@every_loss
def test_finite_at_the_limits(name: str, margin: float, dtype: torch.dtype) -> None:
    masks = discs(0, 4, 20)
    logits = right_logits(masks, margin).to(dtype).requires_grad_()
    loss = LOSSES[name]()(logits, masks)
    loss.backward()
    assert loss.shape == ()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_loss
def test_half_precision_of_large_images(name: str, dtype: torch.dtype) -> None:
    masks = discs(0, 100, 400, size=512)  # more pixels than float16 can count; an empty and a full mask
    logits = random_logits(masks).to(dtype).requires_grad_()
    loss = LOSSES[name]()
    value = loss(logits, masks.to(dtype))
    value.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert value.item() == pytest.approx(loss(logits.detach().double(), masks).item(), rel=1e-4)


@every_loss
def test_autocast_changes_nothing(name: str) -> None:
    masks = discs(2, 6)
    logits = random_logits(masks).float()
    loss = LOSSES[name]()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = loss(logits, masks)
    assert torch.equal(lowered, loss(logits, masks))


@every_loss
def test_masks_of_any_dtype(name: str) -> None:
    masks = discs(2, 6)
    logits = random_logits(masks).float()
    loss = LOSSES[name]()
    expected = loss(logits, masks)
    for dtype in (torch.bool, torch.int64, torch.float16, torch.float32, torch.float64):
        assert torch.equal(loss(logits, masks.to(dtype)), expected)


def test_overlap_keeps_its_digits_near_a_perfect_prediction() -> None:
    masks = discs(70, size=256)
    logits = right_logits(masks, 17)
    exact = Dice()(logits, masks).item()
    assert 0 < exact < 1e-7
    assert Dice()(logits.float(), masks).item() == pytest.approx(exact, rel=1e-4)


@every_loss
def test_slopes(name: str) -> None:
    masks = discs(0, 1, 2, 9, size=4)
    logits = random_logits(masks).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name]()(x, masks), logits)


@pytest.mark.parametrize("shape", [(7, 9), (1, 6), (32, 32)])
def test_distances_to_the_outline(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    masks = (torch.rand(3, 1, *shape, generator=generator) > 0.8).float()
    masks[1], masks[2] = 0, 1
    found = boundary_distances(masks)
    assert found.dtype == torch.float32
    for distances, mask in zip(found.numpy(), masks.double().numpy(), strict=True):
        assert np.allclose(distances, distances_by_hand(mask), atol=1e-6)
    assert not found[1:].any()


def test_far_mistakes_cost_more() -> None:
    masks = discs(4, size=32)
    near, far = masks.clone(), masks.clone()
    near[0, 0, 16, 21:23] = 1
    far[0, 0, 2, 2:4] = 1
    for loss in (Boundary(), Hausdorff()):
        prices = [(loss(right_logits(shown, 9), masks) - Dice()(right_logits(shown, 9), masks)).item()
                  for shown in (masks, near, far)]  # fmt: skip
        assert prices[0] < prices[1] < 0.2 * prices[2]


def test_threshold_pulls_hardest_at_the_threshold() -> None:
    masks = discs(6)

    def share(margin: float) -> tuple[float, float]:
        """The soft Jaccard index, and how much steeper the loss is than one minus it."""
        logits = torch.tensor(margin, dtype=torch.float64, requires_grad=True)
        slopes = [
            torch.autograd.grad(loss(logits * (2 * masks.double() - 1), masks), logits)[0]
            for loss in (ThresholdJaccard(), Jaccard())
        ]
        return 1 - Jaccard()(right_logits(masks, margin), masks).item(), (slopes[0] / slopes[1]).item()

    shares = [share(margin) for margin in np.linspace(-3, 6, 200)]
    index, steepest = max(shares, key=lambda found: found[1])
    assert index == pytest.approx(0.7, abs=0.07)
    assert steepest > 1.5
    assert min(share for _, share in shares) > 0.4  # nowhere without a slope


def test_a_wrong_mask_pulls_less_than_at_the_cross_entropy() -> None:
    """The slope of pixels that the network is sure of and the mask denies, beside that of undecided ones."""
    masks = torch.ones(1, 1, 1, 2)

    def pull(loss: nn.Module) -> float:
        logits = torch.tensor([[[[-5.0, 0.0]]]], requires_grad=True)
        (slope,) = torch.autograd.grad(loss(logits, masks), logits)
        return (slope[..., 0] / slope[..., 1]).item()

    assert pull(BCE()) > 1.9
    assert pull(SymmetricCrossEntropy()) < 0.3
    assert pull(GeneralisedCrossEntropy()) < 0.3


def lovasz_by_level_sets(logits: Tensor, mask: Tensor) -> float:
    """The Lovász extension as an integral of the Jaccard loss over the level sets of the hinge errors."""
    truth = mask.double().flatten().numpy() == 1
    errors = np.maximum(0, 1 - logits.double().flatten().numpy() * np.where(truth, 1, -1))
    total, below = 0.0, 0.0
    for level in np.unique(errors[errors > 0]):
        wrong = errors >= level
        total += (level - below) * wrong.sum() / (truth | wrong).sum()
        below = level
    return total


@pytest.mark.parametrize("seed", range(5))
def test_lovasz_by_its_definition(seed: int) -> None:
    masks = discs(0, 1, 2, 9, size=5)
    logits = random_logits(masks, seed).round(decimals=1)  # with ties
    expected = np.mean([lovasz_by_level_sets(*image) for image in zip(logits, masks, strict=True)])
    assert Lovasz()(logits, masks).item() == pytest.approx(expected, rel=1e-12)


def test_lovasz_is_the_jaccard_loss_of_a_hard_prediction() -> None:
    truth, predicted = discs(5), discs(3)
    margin_of_one = right_logits(predicted, 1)  # right pixels have error 0, wrong ones 2
    jaccard = predicted.sum() / truth.sum()
    assert Lovasz()(margin_of_one, truth).item() == pytest.approx(2 * (1 - jaccard.item()))


def test_lovasz_as_others_have_it() -> None:
    from segmentation_models_pytorch.losses import LovaszLoss

    masks = discs(0, 1, 4, 20)
    logits = random_logits(masks).float()
    expected = LovaszLoss(mode="binary", per_image=True)(logits, masks)
    assert torch.allclose(Lovasz()(logits, masks), expected)


@every_loss
def test_deterministic_on_a_gpu(name: str) -> None:
    masks = discs(2, 6)
    logits = random_logits(masks).requires_grad_()

    class FloatsSummed(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            # CUDA refuses it where the trainer asks for deterministic algorithms.
            assert func is not torch.ops.aten.cumsum.default or not args[0].is_floating_point()
            return func(*args, **(kwargs or {}))

    with FloatsSummed():
        LOSSES[name]()(logits, masks).backward()


@every_loss
def test_descent_finds_the_masks(name: str) -> None:
    masks = discs(2, 6)
    logits = (0.1 * random_logits(masks).float()).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.3)
    loss = LOSSES[name]()
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, masks).backward()
        optimizer.step()
    predicted = logits > 0
    both = (predicted & masks.bool()).sum(dim=(1, 2, 3))
    dice = 2 * both / (predicted.sum(dim=(1, 2, 3)) + masks.sum(dim=(1, 2, 3)))
    assert (dice > 0.95).all()


@pytest.mark.slow
@pytest.mark.parametrize("loss", sorted(path.stem for path in (config_dir() / "loss").glob("*.yaml")))
def test_learns_a_handful_of_images_by_heart(loss: str, train: Train) -> None:
    folder = train(
        "+debug=overfit", "data.overfit=4", "data.batch_size=4", "trainer.max_epochs=60", "optimizer.lr=0.01",
        "data.image_size=[32,40]", "callbacks=minimal", "logger=none", f"loss={loss}",
    )  # fmt: skip
    assert json.loads((folder / "summary.json").read_text())["scores"]["test"]["dice"] > 0.95


@every_loss
def test_shapes_that_would_broadcast(name: str) -> None:
    masks = discs(2, 6)
    with pytest.raises(ValueError, match=r"\(2, 1, 16, 16\) and masks \(2, 16, 16\) differ in shape"):
        LOSSES[name]()(torch.zeros(2, 1, 16, 16), masks[:, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tversky(alpha=-0.1), "alpha=-0.1, beta=0.7: expected weights >= 0"),
        (lambda: Tversky(alpha=0, beta=0), "alpha=0, beta=0"),
        (lambda: Tversky(alpha=float("nan")), "alpha=nan"),
        (lambda: FocalTversky(beta=-1), "beta=-1"),
        (lambda: FocalTversky(gamma=0), "gamma=0"),
        (lambda: Dice(smooth=0), "smooth=0: expected a number > 0"),
        (lambda: Jaccard(smooth=-1), "smooth=-1"),
        (lambda: Dice(smooth=float("nan")), "smooth=nan"),
        (lambda: BCEDice(bce_weight=-1), "bce_weight=-1"),
        (lambda: BCEDice(bce_weight=0, dice_weight=0), "dice_weight=0"),
        (lambda: BCEDice(smooth=0), "smooth=0"),
        (lambda: Focal(alpha=0), "alpha=0"),
        (lambda: Focal(alpha=1), "alpha=1"),
        (lambda: Focal(gamma=-1), "gamma=-1"),
        (lambda: Focal(gamma=float("nan")), "gamma=nan"),
        (lambda: UnifiedFocal(weight=1.1), r"weight=1\.1: expected a share"),
        (lambda: UnifiedFocal(delta=1), "delta=1"),
        (lambda: UnifiedFocal(gamma=1), "gamma=1"),
        (lambda: UnifiedFocal(smooth=0), "smooth=0"),
        (lambda: ThresholdJaccard(weight=-0.1), "weight=-0.1"),
        (lambda: ThresholdJaccard(threshold=1), "threshold=1"),
        (lambda: ThresholdJaccard(temperature=0), "temperature=0"),
        (lambda: SymmetricCrossEntropy(alpha=0, beta=0), "alpha=0, beta=0"),
        (lambda: SymmetricCrossEntropy(log_zero=0), "log_zero=0: expected a number < 0"),
        (lambda: GeneralisedCrossEntropy(q=0), "q=0"),
        (lambda: GeneralisedCrossEntropy(q=1.5), r"q=1\.5"),
        (lambda: Boundary(alpha=-1), "alpha=-1"),
        (lambda: Boundary(smooth=0), "smooth=0"),
        (lambda: Hausdorff(weight=-1), "weight=-1"),
        (lambda: Hausdorff(exponent=0), "exponent=0"),
    ],
)
def test_arguments_out_of_range(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_one_weight_may_be_zero() -> None:
    masks = discs(2, 6)
    logits = random_logits(masks)
    assert torch.equal(BCEDice(bce_weight=0)(logits, masks), Dice()(logits, masks))
    bce = F.binary_cross_entropy_with_logits(logits, masks.double())
    assert torch.equal(BCEDice(dice_weight=0)(logits, masks), bce)


def test_options_state_the_defaults_of_every_loss() -> None:
    stated = {}
    for path in (config_dir() / "loss").glob("*.yaml"):
        node = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(node, dict)
        stated[node.pop("_target_")] = node
    classes = [
        cls
        for module in (losses, robust_losses, boundary_losses)
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ == module.__name__
    ]
    assert stated == {
        f"{cls.__module__}.{cls.__name__}": {
            name: parameter.default
            for name, parameter in inspect.signature(cls.__init__).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        for cls in classes
    }
