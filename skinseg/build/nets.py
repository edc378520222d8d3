"""A network with all that a photograph needs to become a mask, of a configuration or of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from skinseg.build.nodes import arguments, constructor, instance, without_weights
from skinseg.build.trust import trusted_checkpoint
from skinseg.callbacks.quiet import unknown_arguments_as_errors
from skinseg.config.schema import Node
from skinseg.data.loader import default_workers, warn_of_workers
from skinseg.data.photographs import DEFAULT_MAX_MEGAPIXELS
from skinseg.data.transforms.changes import Preprocessing
from skinseg.errors import SkinsegError
from skinseg.inference.predictor import Device, Predictor
from skinseg.models.encoder_weights import normalization
from skinseg.models.ensemble import Ensemble
from skinseg.models.net import LesionNet
from skinseg.models.networks import build_network
from skinseg.run.checkpoint import load_weights
from skinseg.run.record import RunRecord


def net(config: Mapping[str, Any]) -> LesionNet:
    """Builds the network of a configuration, with the encoder's weights.

    Args:
        config: Resolved.

    Raises:
        SkinsegError: Its parts do not go together, or the weights cannot be had.
    """
    node = config["model"]
    network = _network(node, config)  # which says what to do where weights cannot be fetched
    mean, std = normalization(node.get("encoder_name"), node.get("encoder_weights"))
    return LesionNet(
        network,
        mean=mean,
        std=std,
        threshold=config["threshold"],
        channels_last=config["channels_last"],
    )


def load_net(path: str | Path, trust: str | Sequence[str] = ()) -> tuple[LesionNet, RunRecord]:
    """Rebuilds a trained network from its checkpoint alone, without what trained it.

    Args:
        path: `best.ckpt` or `last.ckpt` of a run, or an ensemble of some.
        trust: Packages whose constructors the checkpoint may name; see `skinseg.build.trust`.

    Returns:
        The network in evaluation mode, and what the checkpoint says of its training.

    Raises:
        SkinsegError: The file is not a whole checkpoint of skinseg, or names what is not built from a file.
    """
    checkpoint = trusted_checkpoint(path, key="ckpt", trust=trust)
    record = RunRecord.of(checkpoint)
    if record.members:
        network: nn.Module = Ensemble([LesionNet(_trained_network(member)) for member in record.members])
    else:
        network = _trained_network(record.config)
    built = LesionNet(
        network, threshold=record.config["threshold"], channels_last=record.config["channels_last"]
    )
    take_weights(built, checkpoint, key="ckpt")
    return built.eval(), record


def take_weights(net: LesionNet, checkpoint: dict[str, Any], *, key: str) -> None:
    """Gives a network the weights of a checkpoint, and the normalization that they were trained with.

    Args:
        net: A net of the checkpoint's architecture.
        checkpoint: What `trusted_checkpoint` returned.
        key: The config key that named it, for the message.

    Raises:
        SkinsegError: The architectures differ.
    """
    load_weights(net.network, checkpoint, key=key)
    for name in ("mean", "std"):
        getattr(net, name).copy_(checkpoint["state_dict"][name])


def predictor(
    net: LesionNet,
    record: RunRecord,
    *,
    device: Device = "auto",
    precision: str | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
) -> Predictor:
    """Builds what applies a trained network to photographs.

    Args:
        net: What `load_net` returned.
        record: The record that `load_net` returned.
        device: See `Predictor`.
        precision: See `Predictor`. None: that of the training.
        batch_size: See `Predictor`. None: that of the training.
        num_workers: See `Predictor`. None: as suits the machine.
        max_megapixels: See `Predictor`.

    Raises:
        SkinsegError: A value is out of range, or the device is not there.
    """
    trained = record.config
    height, width = trained["data"]["image_size"]
    for key, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
        if value is not None and value < least:
            raise SkinsegError(f"{key}={value}: expected {least} or more.")
    if not max_megapixels > 0:
        raise SkinsegError(f"max_megapixels={max_megapixels}: expected more than 0.")
    if num_workers is not None:
        warn_of_workers("num_workers", num_workers)
    return Predictor(
        net,
        input_size=(height, width),
        preprocess=preprocessing(trained["preprocess"]),
        batch_size=trained["data"]["batch_size"] if batch_size is None else batch_size,
        num_workers=default_workers() if num_workers is None else num_workers,
        device=device,
        precision=trained["trainer"].get("precision", "32-true") if precision is None else precision,
        max_megapixels=max_megapixels,
    )


def preprocessing(node: Node | None) -> Preprocessing | None:
    """Builds what is done to every image.

    Nothing need not be built: albumentations takes longer to import than a few images to predict.

    Args:
        node: `preprocess` of a configuration. None: nothing.
    """
    if node is None or node.get("transforms") == {}:
        return None
    with unknown_arguments_as_errors():
        built: Preprocessing = instance("preprocess", node)
    return built


def _trained_network(config: Mapping[str, Any]) -> nn.Module:
    """Builds a network whose weights come from a checkpoint."""
    return _network(without_weights(config["model"]), config)


def _network(node: Node, config: Mapping[str, Any]) -> nn.Module:
    called = constructor("model", node)
    height, width = config["data"]["image_size"]
    return build_network(
        called.func,
        {**called.keywords, **arguments("model", node)},
        image_size=(height, width),
        batch_size=config["data"]["batch_size"],
        channels_last=config["channels_last"],
    )
