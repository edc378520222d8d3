"""Encoder weights: of a local file, or of a set that a library fetches, with the colours that they expect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skinseg.errors import SkinsegError
from skinseg.models.stored import NotReadableError, read_stored
from skinseg.names import is_path
from skinseg.online import reachable

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
def one_attempt(weights: object) -> Iterator[None]:
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


def is_download_failure(error: BaseException) -> bool:
    """Returns whether an error, or what it came of, is that of a download."""
    chain: BaseException | None = error
    while chain is not None:
        module = type(chain).__module__
        if module.startswith(("huggingface_hub", "httpx", "requests", "urllib", "urllib3")):
            return True
        if isinstance(chain, (ConnectionError, TimeoutError)):
            return True
        chain = chain.__cause__ or chain.__context__
    return False
