"""What a batch of images is computed by, the same on every device and in every batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Weights of red, green and blue in OpenCV's COLOR_RGB2GRAY (ITU-R BT.601).
_GREY = (0.299, 0.587, 0.114)


def place_grid(grid: Tensor, theta: Tensor, x: Tensor, y: Tensor) -> None:
    """Writes into the grid where theta, shape (images, 2, 3), takes x and y."""
    for axis in (0, 1):
        of_x, of_y, shift = theta[:, axis, :, None, None].unbind(1)
        torch.add(x * of_x, y * of_y + shift, out=grid[..., axis])


def mirrored_at_border(place: Tensor) -> Tensor:
    """Mirrors places at -1 and 1, those between -3 and 3 exactly."""
    return place.add_(1).abs_().sub_(2).abs_().neg_().add_(1)


def mix_colours(colours: Tensor, parameters: Tensor, *, grey: bool) -> Tensor:
    """Returns a·colour + b·grey + c·mean grey + d, cut as albumentations' lookup tables are.

    Args:
        colours: See `_Step`.
        parameters: a, b, c and d of each image.
        grey: b or c is not 0.
    """
    scale, of_grey, of_mean, shift = parameters[:, :, None, None].unbind(1)
    if grey:
        red, green, blue = colours.unbind(1)
        greys = (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2]).round_()
        # A sum of whole numbers, which is the same in any order.
        mean = greys.sum(dim=-1).long().sum(dim=-1).float() / greys[0].numel()
        more = greys.mul_(of_grey).add_(mean[:, None, None] * of_mean + shift)
    else:
        more = shift
    return colours.mul_(scale[:, None]).add_(more[:, None]).clamp_(0, 255).floor_()


def turn_hue(colours: Tensor, turns: Tensor) -> Tensor:
    """Turns the hue, which is counted in steps of 2 degrees as OpenCV's 8-bit HSV does.

    Args:
        colours: See `_Step`.
        turns: Shape (images,), in turns.
    """
    red, green, blue = colours.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = value - low
    # In sixths of a turn, times the chroma: 0 at red, 2 at green, 4 at blue. Colours are whole numbers, so
    # these weights are 0 or 1; torch.where would take longer on a CPU.
    is_red, is_green = ((one - value).add_(1).clamp_(min=0) for one in (red, green))
    hue = (red - green).add_(chroma, alpha=4)
    hue.lerp_((blue - red).add_(chroma, alpha=2), is_green).lerp_(green - blue, is_red)
    hue.div_(chroma.clamp(min=1)).mul_(30).round_().add_(180 * turns[:, None, None]).floor_()
    hue.sub_((hue / 180).floor_(), alpha=180).div_(30)
    # How much of the chroma each channel has: a trapezium over the hue.
    share = torch.stack([hue - 3, hue - 2, hue - 4], dim=1).abs_()
    share[:, 0].sub_(1)
    share[:, 1:].neg_().add_(2)
    return share.clamp_(0, 1).mul_(chroma[:, None]).add_(low[:, None]).round_()


def gamma_corrected(colours: Tensor, power: Tensor) -> Tensor:
    """Raises colours, as shares of 255, to a power."""
    return colours.div_(255).pow_(power[:, None, None, None]).mul_(255).floor_()


def blurred_colours(colours: Tensor, taps: Tensor) -> Tensor:
    """Convolves rows and columns with kernels of shape (images, taps)."""
    return smooth(pad(colours, taps.shape[1] // 2, "reflect"), taps).round_()


def add_noise(colours: Tensor, std: Tensor, *, seeds: list[int], generator: torch.Generator) -> Tensor:
    """Adds noise of a standard deviation, in values of 0 to 255."""
    noise = normal(colours.shape, seeds, generator)
    # albumentations cuts the noise to whole numbers, towards 0.
    return colours.add_(noise.mul_(std[:, None, None, None]).trunc_()).clamp_(0, 255)


def normal(shape: Sequence[int], seeds: list[int], generator: torch.Generator) -> Tensor:
    """Returns standard normal noise, of which each image's depends on its own seed alone."""
    result = torch.empty(tuple(shape), device=generator.device)
    for image, seed in zip(result, seeds, strict=True):
        image.normal_(generator=generator.manual_seed(seed))
    return result


def pad(images: Tensor, width: int, how: str) -> Tensor:
    """Continues images by `width` pixels on all sides; "reflect" is BORDER_REFLECT_101, at any size."""
    for axis in (-2, -1):
        size = images.shape[axis]
        index = torch.arange(-width, size + width, device=images.device)
        if how == "reflect":
            period = max(2 * (size - 1), 1)
            index = index.remainder(period)
            index = torch.minimum(index, period - index) if size > 1 else index.zero_()
        images = images.index_select(axis, index.clamp_(0, size - 1))
    return images


def smooth(padded: Tensor, taps: Tensor) -> Tensor:
    """Convolves rows and columns with a symmetric kernel, in an order that no batch size changes.

    Args:
        padded: Shape (images, channels, height + taps - 1, width + taps - 1).
        taps: Shape (images, taps).

    Returns:
        Shape (images, channels, height, width).
    """
    reach = taps.shape[1] // 2
    for axis in (-2, -1):
        size = padded.shape[axis] - 2 * reach
        result = padded.narrow(axis, reach, size) * taps[:, reach, None, None, None]
        for step in range(1, reach + 1):
            pair = padded.narrow(axis, reach - step, size) + padded.narrow(axis, reach + step, size)
            result.addcmul_(pair, taps[:, reach + step, None, None, None])
        padded = result
    return padded
