"""Builds networks: which pairs of segmentation-models-pytorch work, and encoder weights from a local file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skinseg.counting import counted
from skinseg.errors import SkinsegError
from skinseg.models.stored import NotReadableError, read_stored
from skinseg.names import is_path
from skinseg.nearest import nearest
from skinseg.online import reachable
from skinseg.quoting import override, pasted

Colour = tuple[float, float, float]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)

# What is left of a classifier's file when its encoder is taken out: how the names begin.
_CLASSIFIERS = ("classifier", "fc", "head")
_HEAD_PARTS = (
    "classif",
    "fc_",
    "_fc_",
    "linear_",
    "head_",
    "last_linear_",
    "conv_head_",
    "bn2_",
    "norm_",
    "norm_head_",
    "norm_pre_",
    "features_norm5_",
    "final_conv_",
    "pre_logits_",
)

_TIMM_NAMES = {
    "inceptionv4": "inception_v4",
    "inceptionresnetv2": "inception_resnet_v2",
    "xception": "legacy_xception",
}

_PREFIXES = ("module.", "network.", "encoder.", "backbone.", "model.body.", "model.")

# The files that torchvision publishes of DenseNet say `norm.1`, its model and everyone else's `norm1`.
_PUBLISHED_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")


@dataclass(frozen=True)
class WeightsReport:
    """How a file fitted an encoder.

    Attributes:
        matched: Tensors of the encoder that were filled.
        left_over: Names in the file that belong to the parts of its classifier which the encoder leaves out.
    """

    matched: int
    left_over: tuple[str, ...]


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
        with _one_attempt(options.get("encoder_weights")):
            network = constructor(**options)
    except Exception as error:
        if options.get("encoder_weights") is not None and _is_download_failure(error):
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
        _check_size(type(network).__name__, image_size, size_step(network))
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


def normalization(encoder_name: str | None, encoder_weights: str | None) -> tuple[Colour, Colour]:
    """Returns the colour statistics that an encoder was trained with.

    Args:
        encoder_name: As in `build_network`.
        encoder_weights: As in `build_network`.

    Returns:
        Mean and standard deviation of R, G and B in [0, 1]: the library's for weights it fetches, for a local
        file those of timm's default weights of the same architecture, else those of ImageNet.
    """
    if encoder_name is None or encoder_weights is None:
        return IMAGENET_MEAN, IMAGENET_STD
    from segmentation_models_pytorch.encoders import get_preprocessing_params, is_equivalent_to_timm_universal

    if is_path(encoder_weights) or is_equivalent_to_timm_universal(encoder_name):
        # The library has no statistics for a file, and none either for what it fetches from timm.
        encoder_name = f"tu-{_timm_name(encoder_name)}"
    try:
        settings = get_preprocessing_params(encoder_name, encoder_weights)
    except ValueError:  # no pretrained weights are known of this encoder
        return IMAGENET_MEAN, IMAGENET_STD
    mean, std = tuple(settings["mean"]), tuple(settings["std"])
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _timm_name(encoder_name: str) -> str:
    """Returns what timm calls an encoder's architecture, where it has the same."""
    if encoder_name.startswith("tu-"):
        return encoder_name.removeprefix("tu-")
    if encoder_name.startswith("timm-mobilenetv3"):
        return f"tf_{encoder_name.removeprefix('timm-')}"
    if encoder_name.startswith("timm-"):
        return encoder_name.removeprefix("timm-").replace("-", "_")
    return _TIMM_NAMES.get(encoder_name, encoder_name)


def load_encoder_weights(network: nn.Module, path: Path) -> WeightsReport:
    """Fills a network's encoder from a local file of classifier or encoder weights.

    Names may be those of timm, torchvision or segmentation-models-pytorch. Every tensor of the encoder has to
    be there: a part of the weights would pass for a pretrained encoder without being one. Nothing but a
    classification head may be left over, or what timm's features leave out of the classifier, such as the
    stages below a shallow encoder; then the file has to hold the rest of that classifier too.

    Args:
        network: Its `encoder` is filled.
        path: A .safetensors file, or one that `torch.load(weights_only=True)` reads.

    Raises:
        SkinsegError: No such file, no weights, or the weights of another encoder.
    """
    from segmentation_models_pytorch.encoders import TimmUniversalEncoder

    encoder = network.encoder
    assert isinstance(encoder, nn.Module)
    # Only what is used is left in timm's features, under whatever name; Vision Transformers keep their heads.
    all_used = isinstance(encoder, TimmUniversalEncoder)
    content = {_unwrapped(name): tensor for name, tensor in _read_weights(path).items()}
    there = {_bare(name): tensor for name, tensor in content.items()}
    own = {
        name: tensor
        for name, tensor in encoder.state_dict().items()
        if not _is_counter(name) and (all_used or _bare(name).split("_")[0] not in _CLASSIFIERS)
    }
    fitting = {
        name: there[_bare(name)]
        for name, tensor in own.items()
        if _bare(name) in there and there[_bare(name)].shape == tensor.shape
    }
    used = {_bare(name) for name in fitting}
    left_over = sorted(name for name in content if _bare(name) not in used and not _is_counter(name))
    foreign = [name for name in left_over if not _bare(name).startswith(_HEAD_PARTS)]
    if foreign:
        trunk = _trunk_of_timm(encoder)
        if trunk.keys() <= there.keys():
            foreign = [name for name in foreign if trunk.get(_bare(name)) != content[name].shape]
    missing = [name for name in own if name not in fitting]
    if missing or foreign:
        examples = [
            f"{name} {tuple(own[name].shape)}, "
            + (f"there {tuple(there[_bare(name)].shape)}" if _bare(name) in there else "not there")
            for name in missing[:3]
        ] + [f"{name} {tuple(content[name].shape)}, only in the file" for name in foreign[:3]]
        raise SkinsegError(
            f"model.encoder_weights={path}: {len(fitting)} of the encoder's {len(own)} tensors are there, "
            f"and {len(foreign)} in the file belong to no classification head ({'; '.join(examples)}). "
            "It is probably the file of another encoder; compare with model.encoder_name."
        )
    # Counters of batches only matter for batch norm without momentum, and safetensors files lack them.
    # Some encoders of segmentation-models-pytorch override the method, for files of their own.
    nn.Module.load_state_dict(encoder, fitting, strict=False)
    return WeightsReport(len(fitting), tuple(left_over))


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
    _check_size(f"{decoder} with the encoder {encoder}", image_size, step)
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


def _check_size(network: str, image_size: tuple[int, int], step: int) -> None:
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


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _bare(name: str) -> str:
    """Returns what the names of a tensor have in common in a classifier and in its encoder.

    Dots become underscores, as in timm's names of the parts of an encoder (`stages.0` is `stages_0` there).
    """
    return _unwrapped(name).replace(".", "_")


def _unwrapped(name: str) -> str:
    """Returns a tensor's name without the wrappers that libraries put around an encoder."""
    name = _PUBLISHED_DENSENET.sub(r"\1\2", name)
    while True:
        stripped = name
        for prefix in _PREFIXES:
            stripped = stripped.removeprefix(prefix)
        if stripped == name:
            return name
        name = stripped


def _trunk_of_timm(encoder: nn.Module) -> dict[str, torch.Size]:
    """Returns the shapes in timm's classifier, without its head, by bare name; none for other encoders."""
    from segmentation_models_pytorch.encoders import TimmUniversalEncoder, TimmViTEncoder

    if not isinstance(encoder, (TimmUniversalEncoder, TimmViTEncoder)):
        return {}
    import timm

    with torch.device("meta"):
        classifier = timm.create_model(encoder.name, pretrained=False)
    shapes = {_bare(name): tensor.shape for name, tensor in classifier.state_dict().items()}
    return {
        name: shape
        for name, shape in shapes.items()
        if not name.startswith(_HEAD_PARTS) and not _is_counter(name)
    }


def _read_weights(path: Path) -> dict[str, Tensor]:
    where = f"model.encoder_weights={path}"
    if not path.is_file():
        raise SkinsegError(f"{where}: no such file.")
    try:
        content: Any = _read_safetensors(path) if path.suffix == ".safetensors" else read_stored(path)
    except NotReadableError as error:
        raise SkinsegError(
            f"{where} ({path.stat().st_size} bytes) cannot be read as weights: {error}. Expected the "
            "state_dict() of a network."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not (isinstance(content, dict) and content and all(isinstance(v, Tensor) for v in content.values())):
        raise SkinsegError(f"{where} holds no named tensors; expected a state_dict.")
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise NotReadableError(f"no whole file of safetensors ({str(error).splitlines()[0]})") from error


@contextmanager
def _one_attempt(weights: object) -> Iterator[None]:
    """Takes weights from the Hub's local cache alone where the Hub cannot be reached.

    Its client would try each file six times with growing pauses, up to four minutes for an encoder, and
    print a line for each attempt.
    """
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline or (weights is not None and not reachable(constants.ENDPOINT))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def _is_download_failure(error: BaseException) -> bool:
    chain: BaseException | None = error
    while chain is not None:
        module = type(chain).__module__
        if module.startswith(("huggingface_hub", "httpx", "requests", "urllib", "urllib3")):
            return True
        if isinstance(chain, (ConnectionError, TimeoutError)):
            return True
        chain = chain.__cause__ or chain.__context__
    return False
