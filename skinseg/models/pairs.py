"""Which encoders, decoders and image sizes of segmentation-models-pytorch go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from skinseg.errors import SkinsegError
from skinseg.nearest import nearest
from skinseg.quoting import override, pasted


def check_network(
    decoder: str,
    options: Mapping[str, Any],
    *,
    image_size: tuple[int, int],
    batch_size: int,
    channels_last: bool = False,
) -> None:
    """Refuses what is known to fail in the middle of a run.

    The rules were measured with segmentation-models-pytorch 0.6.0: 12 decoders, 25 encoders of all families,
    five sizes and batches, forward and backward in training mode. `tests/models/test_networks.py` repeats a
    part of it.

    Args:
        decoder: Class name in segmentation-models-pytorch.
        options: Its arguments, with `encoder_name`.
        image_size: Height and width of the images, in pixels.
        batch_size: Images in a training step.
        channels_last: Whether the memory layout NHWC is used.

    Raises:
        SkinsegError: It will not work; says what would.
    """
    encoder = options["encoder_name"]
    _check_encoder_exists(encoder)
    for family, decoders, way_out in _BAD_PAIRS:
        if decoder in decoders and family(encoder):
            raise SkinsegError(f"model: {decoder} does not work with the encoder {encoder}. {way_out}")
    if decoder == "DPT":
        _check_vit_size(encoder, image_size)
    step = _step_of(decoder, options)
    check_size(f"{decoder} with the encoder {encoder}", image_size, step)
    if decoder == "PAN" and min(image_size) < 8 * step:
        raise SkinsegError(
            f"data.image_size={list(image_size)}: PAN halves its deepest features three times and needs "
            f"{8 * step} pixels a side; take a larger data.image_size or another model."
        )
    if encoder.startswith("mobileone") and channels_last and not torch.cuda.is_available():
        raise SkinsegError(
            f"model.encoder_name={encoder}: PyTorch aborts in its backward pass on a processor with the "
            "memory layout NHWC; set channels_last=false."
        )
    if batch_size == 1 and (decoder in _POOLS_TO_ONE_PIXEL or encoder.startswith(_SQUEEZING_ENCODERS)):
        raise SkinsegError(
            f"data.batch_size=1: {decoder} with the encoder {encoder} normalises features of one pixel over "
            "the batch, which takes two images or more. Take data.batch_size=2 with "
            "trainer.accumulate_grad_batches, or another model."
        )


def check_size(network: str, image_size: tuple[int, int], step: int) -> None:
    """Raises SkinsegError for an image size that a network does not take, with the nearest that it does."""
    if any(side % step for side in image_size):
        allowed = [max(step, round(side / step) * step) for side in image_size]
        raise SkinsegError(
            f"data.image_size={list(image_size)}: {network} needs multiples of {step} pixels; the nearest is "
            f"{pasted(override('data.image_size', allowed))}."
        )


def _family(*prefixes: str) -> Callable[[str], bool]:
    return lambda encoder: encoder.startswith(prefixes)


_POOLS_TO_ONE_PIXEL = ("PAN", "DeepLabV3", "DeepLabV3Plus", "UPerNet")


_SQUEEZING_ENCODERS = ("timm-skresnet", "tu-skresnet", "timm-resnest", "tu-resnest")


_DILATING = ("PAN", "DeepLabV3", "DeepLabV3Plus")


_BAD_PAIRS: tuple[tuple[Callable[[str], bool], tuple[str, ...], str], ...] = (
    (
        _family("mit_"),
        ("UnetPlusPlus", "Linknet"),
        "Mix Transformers go with model=segformer, unet, fpn, manet, upernet.",
    ),
    (
        _family("densenet", "vgg", "inception", "xception", "tu-swin", "tu-maxvit", "tu-hrnet"),
        _DILATING,
        "It cannot be dilated; take model=unet, fpn or upernet, or a ResNet.",
    ),
    (
        lambda encoder: not encoder.startswith(("tu-vit_", "tu-deit", "tu-beit", "tu-eva", "tu-flexivit")),
        ("DPT",),
        "DPT takes Vision Transformers of timm, e.g. model.encoder_name=tu-vit_small_patch16_224.",
    ),
)


def _step_of(decoder: str, options: Mapping[str, Any]) -> int:
    """Returns the multiple of pixels that a decoder needs: the stride of its encoder's deepest features."""
    if decoder == "Unet":
        return 1  # it crops and pads by itself
    stride = {"DeepLabV3": 8, "DeepLabV3Plus": 16, "PAN": 16}.get(decoder)
    if stride is not None:
        return int(options.get("encoder_output_stride", stride))
    if decoder == "DPT":
        return 1  # fixed by the encoder
    return int(2 ** options.get("encoder_depth", 3 if decoder == "PSPNet" else 5))


def _check_vit_size(encoder: str, image_size: tuple[int, int]) -> None:
    import timm

    own = timm.models.get_pretrained_cfg(encoder.removeprefix("tu-"))
    if own is None:
        return
    size = tuple(own.input_size[1:])
    if tuple(image_size) != size:
        raise SkinsegError(
            f"data.image_size={list(image_size)}: {encoder} takes images of its own size, "
            f"{pasted(override('data.image_size', size))}."
        )


def _check_encoder_exists(encoder: str) -> None:
    if encoder.startswith("tu-"):
        import timm

        name = encoder.removeprefix("tu-")
        if timm.is_model(name):
            return
        known = [f"tu-{other}" for other in timm.list_models()]
    else:
        from segmentation_models_pytorch.encoders import encoders, is_equivalent_to_timm_universal

        if encoder in encoders or is_equivalent_to_timm_universal(encoder):
            return
        known = list(encoders)
    near = nearest(encoder, known, 3)
    raise SkinsegError(
        f"model.encoder_name={encoder}: unknown; "
        + (f"did you mean {', '.join(near)}? " if near else "")
        + "Known are those of segmentation_models_pytorch.encoders, and tu-<name> for the models of timm."
    )
