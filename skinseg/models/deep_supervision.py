"""Losses at several depths of a decoder, for training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinseg.errors import SkinsegError


class DeepSupervision(nn.Module):
    """Supervises what a network's decoder gives on the way (Lee et al., AISTATS 2015, arXiv:1409.5185).

    What each decoder block before the last one gives passes a 1x1 convolution, is resized bilinearly to the
    size of the masks and compared with them by the loss of the network's output. These convolutions are this
    module's, not the network's: a checkpoint keeps them so that a run can be resumed, and the network
    predicts without them. Where a network makes guesses of its own on the way, in the modules of its
    `auxiliary_heads`, these are supervised instead.

    The blocks are those of `decoder.blocks`, which Unet, UnetPlusPlus (x_0_* are taken), MAnet, Linknet,
    PlainUNet and ResUNet have.

    Args:
        network: Maps (B, 3, H, W) to logits (B, 1, H, W).
        weights: Of the losses, the one next to the output first, then deeper ones; > 0. That of the output
            itself is 1.
        image_size: Height and width of the images, in pixels.

    Raises:
        SkinsegError: The decoder has no blocks, or fewer than weights; or a weight is out of range.
    """

    def __init__(self, network: nn.Module, weights: Sequence[float], *, image_size: tuple[int, int]) -> None:
        super().__init__()
        given = f"deep_supervision={list(weights)}"
        if not weights or not all(0 < weight < math.inf for weight in weights):
            raise SkinsegError(f"{given}: expected weights > 0, or null.")
        depths, own_heads = _depths(network)
        name = type(network).__name__
        if not depths:
            raise SkinsegError(
                f"{given}: the decoder of {name} has no features of several depths to supervise. Take "
                "model=unet, unetplusplus, manet, linknet, plain_unet, resunet or egeunet, or set "
                "deep_supervision=null."
            )
        if len(weights) > len(depths):
            raise SkinsegError(
                f"{given}: {name} has {len(depths)} depths below its output; give as many weights at most."
            )
        self.weights = tuple(weights)
        self._features: dict[int, Tensor] = {}
        for depth, module in enumerate(depths[: len(weights)]):
            module.register_forward_hook(partial(self._keep, depth))
        channels = self._channels(network, image_size)
        self.heads = nn.ModuleList(
            nn.Identity() if own_heads else nn.Conv2d(width, 1, 1) for width in channels
        )

    def _channels(self, network: nn.Module, image_size: tuple[int, int]) -> list[int]:
        training = network.training
        weight = next(network.parameters())
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, *image_size, device=weight.device))
        network.train(training)
        channels = [self._features[depth].shape[1] for depth in range(len(self.weights))]
        self._features.clear()
        return channels

    def _keep(self, depth: int, module: nn.Module, inputs: object, features: Tensor) -> None:
        if self.training:
            self._features[depth] = features

    def forward(self, loss: Callable[[Tensor, Tensor], Tensor], masks: Tensor) -> Tensor:
        """Returns the weighted sum of the losses, of what the network's last forward pass gave in training.

        Args:
            loss: As in `LesionSegmenter`.
            masks: What `loss` compares with, of shape (B, ..., H, W).
        """
        total = masks.new_zeros((), dtype=torch.float32)
        for depth, (weight, head) in enumerate(zip(self.weights, self.heads, strict=True)):
            logits = head(self._features.pop(depth))
            logits = F.interpolate(logits, size=masks.shape[2:], mode="bilinear")
            total = total + weight * loss(logits, masks)
        return total


def _depths(network: nn.Module) -> tuple[list[nn.Module], bool]:
    """Returns the modules with something to supervise, the finest first, and whether they give logits."""
    heads = getattr(network, "auxiliary_heads", None)
    if heads is not None:
        return list(heads), True
    blocks = getattr(getattr(network, "decoder", None), "blocks", None)
    if isinstance(blocks, nn.ModuleDict):  # U-Net++, in which x_0_* are what a U-Net has
        blocks = [block for name, block in blocks.items() if name.startswith("x_0_")]
    return list(blocks or [])[-2::-1], False
