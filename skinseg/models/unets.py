"""U-Nets without a pretrained encoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainUNet(nn.Module):
    """The U-Net (Ronneberger et al., MICCAI 2015) with padded, batch-normalised convolutions.

    Each level has two 3x3 convolutions, each with batch norm and ReLU. On the way down the largest of 2x2
    pixels is kept; on the way up a transposed convolution doubles the size, and the features of that level
    from the way down are joined on. The paper's convolutions are neither padded nor normalised, so that its
    output is smaller than the image. 31.0 million parameters at the paper's widths.

    Args:
        widths: Channels of each level from the image's size down. The paper's double from one to the next.

    Attributes:
        size_step: Height and width have to be multiples of this, in pixels.

    Raises:
        ValueError: Fewer than two levels, or a width below 1.
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 256, 512, 1024)) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"widths={list(widths)}: expected the channels of two levels or more.")
        self.size_step = 2 ** (len(widths) - 1)
        self.encoder = _Encoder([self._block(*pair) for pair in pairwise([3, *widths])])
        self.decoder = _Decoder(
            [_Up(low, high, self._block(2 * high, high)) for low, high in pairwise(reversed(widths))]
        )
        self.head = nn.Conv2d(widths[0], 1, 1)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            *_convolution(inputs, outputs), nn.ReLU(), *_convolution(outputs, outputs), nn.ReLU()
        )

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits of shape (B, 1, H, W) for normalised images of shape (B, 3, H, W)."""
        logits: Tensor = self.head(self.decoder(self.encoder(images)))
        return logits


class ResUNet(PlainUNet):
    """`PlainUNet` with residual blocks (He et al., CVPR 2016) in the place of its pairs of convolutions.

    The input of a pair, through a 1x1 convolution with batch norm, is added before the last ReLU. The ResUNet
    of Zhang et al. (GRSL 2018, arXiv:1711.10684) differs: it normalises before it convolves, has a level less
    and halves the size by strides.

    Args:
        widths: As in `PlainUNet`.
    """

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Module:
        return _Residual(inputs, outputs)


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *_convolution(inputs, outputs), nn.ReLU(), *_convolution(outputs, outputs)
        )
        self.shortcut = nn.Sequential(*_convolution(inputs, outputs, size=1))

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.convolutions(features) + self.shortcut(features))


class _Encoder(nn.Module):
    """Gives the features of each level, the finest first."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, images: Tensor) -> list[Tensor]:
        levels = [self.blocks[0](images)]
        for block in self.blocks[1:]:
            levels.append(block(F.max_pool2d(levels[-1], 2)))
        return levels


class _Up(nn.Module):
    def __init__(self, low: int, high: int, block: nn.Module) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(low, high, 2, stride=2)
        self.block = block

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        joined: Tensor = self.block(torch.cat([skip, self.upsample(features)], dim=1))
        return joined


class _Decoder(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, levels: list[Tensor]) -> Tensor:
        features = levels[-1]
        for block, skip in zip(self.blocks, reversed(levels[:-1]), strict=True):
            features = block(features, skip)
        return features


def _convolution(inputs: int, outputs: int, size: int = 3) -> tuple[nn.Module, nn.Module]:
    # The norm takes off what a bias would add.
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False), nn.BatchNorm2d(outputs)
