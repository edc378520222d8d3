"""Builds networks: which pairs of segmentation-models-pytorch work, and encoder weights from a local file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skinseg.counting import counted
from skinseg.errors import SkinsegError
from skinseg.models.encoder_weights import is_download_failure, load_encoder_weights, one_attempt
from skinseg.models.pairs import check_network, check_size
from skinseg.names import is_path


def build_network(
    constructor: Callable[..., nn.Module],
    options: Mapping[str, Any],
    *,
    image_size: tuple[int, int],
    batch_size: int,
    channels_last: bool = False,
) -> nn.Module:
    """Builds a network, with the weights of its encoder.

    Args:
        constructor: A class of segmentation-models-pytorch, or anything that returns a module which maps
            (B, 3, H, W) to logits (B, 1, H, W). A module's `size_step`, if it has one, is the multiple of
            pixels that height and width have to be.
        options: Its arguments. `encoder_weights` is "imagenet" or another set that the library knows, None,
            or the path of a local .safetensors, .pth or .pt file.
        image_size: Height and width of the images, in pixels.
        batch_size: Images in a training step.
        channels_last: Whether the memory layout NHWC will be used.

    Raises:
        SkinsegError: A pair or size that is known not to work, or weights that cannot be had.
    """
    options = dict(options)
    weights = options.get("encoder_weights")
    if "encoder_name" in options and constructor.__module__.startswith("segmentation_models_pytorch"):
        check_network(
            constructor.__name__,
            options,
            image_size=image_size,
            batch_size=batch_size,
            channels_last=channels_last,
        )
    path = None
    if isinstance(weights, str) and is_path(weights):
        path, options["encoder_weights"] = Path(weights).expanduser(), None
    try:
        with one_attempt(options.get("encoder_weights")):
            network = constructor(**options)
    except Exception as error:
        if options.get("encoder_weights") is not None and is_download_failure(error):
            raise SkinsegError(
                f"model.encoder_weights={weights}: the weights of {options.get('encoder_name')} could not be "
                f"fetched ({type(error).__name__}). Without a network, name a local file "
                "(model.encoder_weights=<path of .safetensors or .pth>) or start from random weights "
                "(model.encoder_weights=null)."
            ) from error
        if isinstance(error, (TypeError, ValueError, KeyError, NotImplementedError)):
            raise SkinsegError(f"model: {constructor.__name__} refused its arguments: {error}") from error
        raise
    if path is not None:
        load_encoder_weights(network, path)
    if hasattr(network, "size_step"):
        check_size(type(network).__name__, image_size, size_step(network))
    problem = training_problem(network, image_size, batch_size)
    if problem is not None:
        raise SkinsegError(f"model: {problem} Change data.image_size, data.batch_size or the model.")
    return network


def training_problem(network: nn.Module, image_size: tuple[int, int], batch_size: int) -> str | None:
    """Passes noise through a network as in training: what no rule knows of fails here, not in the run.

    Args:
        network: On the CPU; it is left as it was.
        image_size: Height and width of the images, in pixels.
        batch_size: Images in a training step; two of them are enough here.

    Returns:
        Why it cannot train on them, a sentence. None: it can.
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    training = network.training
    batch = min(2, batch_size)
    name, what = (
        type(network).__name__,
        f"{counted(batch, 'image')} of {image_size[0]}x{image_size[1]} pixels",
    )
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = network.train()(torch.randn(batch, 3, *image_size))
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"{name} cannot train on {what}: {reason.rstrip('.')}."
    finally:
        network.train(training)
        for key, buffer in network.named_buffers():
            buffer.copy_(buffers[key])
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else None
    if shape == (batch, 1, *image_size):
        return None
    return (
        f"{name} returns {shape or f'a {type(logits).__name__}'} for {what}; expected logits of shape "
        f"{(batch, 1, *image_size)} (model.classes=1)."
    )


def size_step(network: nn.Module) -> int:
    """Returns the multiple of pixels that the sides of a network's images should be.

    Args:
        network: Ours have a `size_step`, those of segmentation-models-pytorch an encoder with a stride; of
            others 32 is assumed, which is that of most encoders' deepest features.
    """
    if isinstance(own := getattr(network, "size_step", None), int):
        return own
    if not getattr(network, "requires_divisible_input_shape", True):
        return 1  # it crops and pads by itself
    return int(getattr(getattr(network, "encoder", None), "output_stride", 32))


def checkpoint_gradients(network: nn.Module) -> None:
    """Makes an encoder of timm compute its features again in the backward pass, to save memory.

    Raises:
        SkinsegError: The encoder cannot.
    """
    features = getattr(getattr(network, "encoder", None), "model", None)
    switch = getattr(features, "set_grad_checkpointing", None)
    try:
        if switch is None:
            raise AttributeError("no set_grad_checkpointing")
        switch(True)
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise SkinsegError(
            "gradient_checkpointing=true: this encoder cannot. Take its `tu-` twin of timm, such as "
            "model.encoder_name=tu-resnet34, or lower data.batch_size with trainer.accumulate_grad_batches."
        ) from error
