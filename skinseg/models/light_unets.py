"""EGE-UNet and MALUNet: U-Nets of 0.05 and 0.18 million parameters for skin lesions.

Both are written anew from the papers. Where a paper leaves a choice open (biases, norms, the order of
operations, the size of learned tensors), it was made so that the published numbers of parameters and
operations come out; each class says which these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

_PARTS = 4
"""Both papers work on quarters of the channels, and normalise in as many groups."""

_LEARNED_SIDE = 8
"""Side, in pixels, of the maps that Hadamard product attention learns before they are resized."""


class _LightUNet(nn.Module):
    """What both have in common: six stages down, five up, sums as skip connections.

    Args:
        widths: Channels of the six stages.
        deep: Makes a deep stage of the channels that go in and come out; the first of them, and whether it is
            on the way down.
    """

    size_step = 32

    def __init__(self, widths: Sequence[int], deep: Callable[[int, int, bool], nn.Module]) -> None:
        super().__init__()
        if len(widths) != 6 or any(width < 1 or width % _PARTS for width in widths):
            raise ValueError(
                f"widths={list(widths)}: expected the channels of six stages, multiples of {_PARTS}."
            )
        down = list(pairwise([3, *widths]))
        up = [(low, high) for high, low in reversed(down[1:])]
        self.encoder = nn.ModuleList(
            [_convolution(*pair) for pair in down[:3]] + [deep(*pair, True) for pair in down[3:]]
        )
        self.decoder = nn.ModuleList(
            [deep(*pair, False) for pair in up[:3]] + [_convolution(*pair) for pair in up[3:]]
        )
        self.encoder_norms = nn.ModuleList([nn.GroupNorm(_PARTS, width) for width in widths[:5]])
        self.decoder_norms = nn.ModuleList([nn.GroupNorm(_PARTS, width) for _, width in up])
        self.head = nn.Conv2d(widths[0], 1, 1)

    def _down(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Returns the features of the first five stages, the deepest first, and those of the sixth."""
        skips: list[Tensor] = []
        features = images
        for stage, norm in zip(self.encoder, self.encoder_norms, strict=False):
            features = F.gelu(F.max_pool2d(norm(stage(features)), 2))
            skips.insert(0, features)
        return skips, F.gelu(self.encoder[5](features))

    def _up(self, stage: int, features: Tensor) -> Tensor:
        """Returns the features of a stage on the way up, without what its skip connection adds."""
        features = self.decoder_norms[stage](self.decoder[stage](features))
        if stage > 0:  # the deepest two stages are of one size
            features = _double(features)
        return F.gelu(features)

    def _logits(self, features: Tensor) -> Tensor:
        return _double(self.head(features))


class EGEUNet(_LightUNet):
    """EGE-UNet (Ruan et al., MICCAI 2023, arXiv:2307.08473).

    The stages of 1/1, 1/2 and 1/4 of the size are 3x3 convolutions, the deeper ones grouped multi-axis
    Hadamard product attention (GHPA). In the place of each skip connection a group aggregation bridge (GAB)
    joins the features of the stage, those that the bridge below it gave, and the decoder's guess at the mask
    there. The guesses are what the paper supervises in depth, with the weights
    deep_supervision=[0.5,0.4,0.3,0.2,0.1] from the finest to the coarsest.

    The paper gives 0.053 million parameters and 0.072 GFLOPs at 256x256 pixels, where a multiplication with
    its addition is one operation. Here it is 53,374 parameters and 0.072 GFLOPs.

    Args:
        widths: Channels of the six stages, multiples of 4.

    Attributes:
        size_step: Height and width have to be multiples of this, in pixels.

    Raises:
        ValueError: Other widths.
    """

    def __init__(self, widths: Sequence[int] = (8, 16, 24, 32, 48, 64)) -> None:
        super().__init__(widths, lambda inputs, outputs, _: _HadamardAttention(inputs, outputs))
        up = [(low, high) for high, low in reversed(list(pairwise(widths)))]
        self.guesses = nn.ModuleList([nn.Conv2d(high, 1, 1) for _, high in up])
        self.bridges = nn.ModuleList([_AggregationBridge(low, high) for low, high in up])

    @property
    def auxiliary_heads(self) -> list[nn.Module]:
        """The modules that give logits (B, 1, h, w) on the way, the finest first."""
        return list(self.guesses)[::-1]

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits of shape (B, 1, H, W) for normalised images of shape (B, 3, H, W)."""
        skips, features = self._down(images)
        below = features
        for stage, (skip, guess, bridge) in enumerate(zip(skips, self.guesses, self.bridges, strict=True)):
            features = self._up(stage, features)
            below = bridge(skip, below, guess(features))
            features = features + below
        return self._logits(features)


class MALUNet(_LightUNet):
    """MALUNet (Ruan et al., BIBM 2022, arXiv:2211.01784).

    The stages of 1/1, 1/2 and 1/4 of the size are 3x3 convolutions, the deeper ones inverted external
    attention (IEA) and dilated gated attention (DGA). The features of all skip connections together pass a
    spatial (SAB) and a channel (CAB) attention bridge.

    Published are 0.175 and 0.177 million parameters, and 0.083 GFLOPs at 256x256 pixels, where a
    multiplication with its addition is one operation. Here it is 177,943 parameters (0.177 million where the
    digits behind are cut off), 175,031 without those of group norms, which some counters pass over, and
    0.083 GFLOPs.

    Args:
        widths: Channels of the six stages, multiples of 4.

    Attributes:
        size_step: Height and width have to be multiples of this, in pixels.

    Raises:
        ValueError: Other widths.
    """

    def __init__(self, widths: Sequence[int] = (8, 16, 24, 32, 48, 64)) -> None:
        super().__init__(widths, _attention_stage)
        self.spatial_bridge = nn.Conv2d(2, 1, 7, padding=9, dilation=3)
        self.channel_bridge = _ChannelBridge(widths[4::-1])

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits of shape (B, 1, H, W) for normalised images of shape (B, 3, H, W)."""
        skips, features = self._down(images)
        for stage, skip in enumerate(self.channel_bridge([self._attend(skip) for skip in skips])):
            features = self._up(stage, features) + skip
        return self._logits(features)

    def _attend(self, skip: Tensor) -> Tensor:
        """Attends in space; one convolution serves all stages."""
        summary = torch.cat([skip.mean(dim=1, keepdim=True), skip.amax(dim=1, keepdim=True)], dim=1)
        return skip + skip * torch.sigmoid(self.spatial_bridge(summary))


class _HadamardAttention(nn.Module):
    """GHPA: quarters of the channels, three times learned maps of two axes each, once a convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        part = inputs // _PARTS
        side = _LEARNED_SIDE
        self.norm = LayerNorm2d(inputs)
        self.plane = nn.Parameter(torch.ones(1, part, side, side))
        self.rows = nn.Parameter(torch.ones(1, part, side))
        self.columns = nn.Parameter(torch.ones(1, part, side))
        self.of_plane = nn.Sequential(_depthwise(part), nn.GELU(), nn.Conv2d(part, part, 1))
        self.of_rows = self._along_one_axis(part)
        self.of_columns = self._along_one_axis(part)
        self.local = nn.Sequential(nn.Conv2d(part, part, 1), nn.GELU(), _depthwise(part))
        self.join = nn.Sequential(
            LayerNorm2d(inputs), _depthwise(inputs), nn.GELU(), nn.Conv2d(inputs, outputs, 1)
        )

    @staticmethod
    def _along_one_axis(part: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv1d(part, part, 3, padding=1, groups=part), nn.GELU(), nn.Conv1d(part, part, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        height, width = features.shape[2:]
        first, second, third, fourth = self.norm(features).chunk(_PARTS, dim=1)
        plane = self.of_plane(_resize(self.plane, (height, width)))
        rows = self.of_rows(F.interpolate(self.rows, size=height, mode="linear"))
        columns = self.of_columns(F.interpolate(self.columns, size=width, mode="linear"))
        parts = [first * plane, second * rows.unsqueeze(3), third * columns.unsqueeze(2), self.local(fourth)]
        joined: Tensor = self.join(torch.cat(parts, dim=1))
        return joined


class _AggregationBridge(nn.Module):
    """GAB: quarters of two stages' features and the guessed mask, each at a dilation of its own."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        group = 2 * high // _PARTS + 1
        self.reduce = nn.Conv2d(low, high, 1)
        self.groups = nn.ModuleList(
            nn.Sequential(LayerNorm2d(group), _Dilated(group, dilation)) for dilation in (1, 2, 5, 7)
        )
        self.join = nn.Sequential(LayerNorm2d(_PARTS * group), nn.Conv2d(_PARTS * group, high, 1))

    def forward(self, skip: Tensor, below: Tensor, guess: Tensor) -> Tensor:
        """Joins features (B, high, H, W), features (B, low, h, w) and logits (B, 1, H, W)."""
        below = _resize(self.reduce(below), (skip.shape[2], skip.shape[3]))
        quarters = zip(below.chunk(_PARTS, dim=1), skip.chunk(_PARTS, dim=1), strict=True)
        parts = [
            group(torch.cat([*pair, guess], dim=1)) for group, pair in zip(self.groups, quarters, strict=True)
        ]
        joined: Tensor = self.join(torch.cat(parts, dim=1))
        return joined


def _attention_stage(inputs: int, outputs: int, down: bool) -> nn.Module:
    gated = _GatedAttention(inputs, outputs)
    return (
        nn.Sequential(_ExternalAttention(inputs), gated)
        if down
        else nn.Sequential(gated, _ExternalAttention(outputs))
    )


class _ExternalAttention(nn.Module):
    """IEA: attention to a learned memory that is four times as wide as the features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(width, width, 1)
        self.keys = nn.Conv1d(width, 4 * width, 1, bias=False)
        self.values = nn.Conv1d(4 * width, width, 1, bias=False)
        self.output = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.GroupNorm(_PARTS, width))

    def forward(self, features: Tensor) -> Tensor:
        attention = self.keys(self.query(features).flatten(2)).softmax(dim=2)
        # Guo et al. (2021, arXiv:2105.02358) normalise over pixels, then over the memory.
        attention = attention / (attention.sum(dim=1, keepdim=True) + 1e-9)
        return F.gelu(features + self.output(self.values(attention).view_as(features)))


class _GatedAttention(nn.Module):
    """DGA: quarters of the channels at four dilations, then a gate of 3x3 times values of 5x5."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        part = inputs // _PARTS
        self.dilated = nn.ModuleList(_Dilated(part, dilation) for dilation in (7, 5, 2, 1))
        self.mix = nn.Sequential(nn.GroupNorm(_PARTS, inputs), nn.Conv2d(inputs, inputs, 1), nn.GELU())
        self.gate = _separable(inputs, inputs, 3)
        self.values = _separable(inputs, inputs, 5)
        self.output = _separable(inputs, outputs, 3)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        parts = zip(self.dilated, features.chunk(_PARTS, dim=1), strict=True)
        features = self.mix(torch.cat([convolution(part) for convolution, part in parts], dim=1))
        gated = torch.sigmoid(self.gate(features)) * F.gelu(self.values(features))
        out: Tensor = F.gelu(self.output(gated)) + self.shortcut(features)
        return out


class _ChannelBridge(nn.Module):
    """CAB: weighs the channels of each stage by the means of the channels of all of them."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.local = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.weights = nn.ModuleList(nn.Linear(sum(widths), width) for width in widths)

    def forward(self, skips: list[Tensor]) -> list[Tensor]:
        means = torch.cat([skip.mean(dim=(2, 3)) for skip in skips], dim=1)
        means = self.local(means.unsqueeze(1)).squeeze(1)
        return [
            skip + skip * torch.sigmoid(weigh(means))[:, :, None, None]
            for weigh, skip in zip(self.weights, skips, strict=True)
        ]


def _convolution(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _depthwise(width: int, size: int = 3) -> nn.Module:
    return nn.Conv2d(width, width, size, padding=size // 2, groups=width)


class _Dilated(nn.Conv2d):
    """A dilated depthwise convolution of 3x3."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__(width, width, 3, padding=dilation, dilation=dilation, groups=width)

    def forward(self, features: Tensor) -> Tensor:
        reduced = torch.is_autocast_enabled("cpu") or features.dtype == torch.bfloat16
        if features.device.type != "cpu" or not reduced:
            return super().forward(features)
        # At dilations of 5 and more, the backward pass in bfloat16 ends PyTorch 2.14 on a processor with a
        # segmentation fault.
        assert self.bias is not None
        with torch.autocast("cpu", enabled=False):
            result: Tensor = self._conv_forward(features.float(), self.weight.float(), self.bias.float())
        return result.to(features.dtype)


def _separable(inputs: int, outputs: int, size: int) -> nn.Module:
    return nn.Sequential(
        _depthwise(inputs, size), nn.GroupNorm(_PARTS, inputs), nn.Conv2d(inputs, outputs, 1)
    )


def _resize(features: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(features, size=size, mode="bilinear")


def _double(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="bilinear")
