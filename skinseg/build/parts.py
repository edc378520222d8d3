"""What a training needs beside its trainer: data, the module with loss and optimizer, callbacks, loggers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, Logger

from skinseg.build.nets import net, preprocessing, take_weights
from skinseg.build.nodes import REFUSALS, instance, without_weights
from skinseg.build.trust import trusted, trusted_checkpoint
from skinseg.callbacks.checkpoint import BestAndLast
from skinseg.callbacks.metrics_file import go_on_from
from skinseg.callbacks.quiet import unknown_arguments_as_errors
from skinseg.callbacks.resizing import ProgressiveResizing
from skinseg.config.schema import Node, Plain
from skinseg.data.datamodule import LesionDataModule
from skinseg.data.splits.whole import whole_test_subset
from skinseg.errors import SkinsegError
from skinseg.machine import check_folder
from skinseg.models.deep_supervision import DeepSupervision
from skinseg.models.networks import checkpoint_gradients
from skinseg.models.segmenter import LesionSegmenter
from skinseg.run.record import RunRecord

of_lightning = partial(instance, refusals=(*REFUSALS, MisconfigurationException))
"""Builds a trainer, a callback or a logger; see `nodes.instance`."""


def datamodule(config: Plain) -> LesionDataModule:
    """Builds the data module with its preprocessing, augmentation and mixing."""
    with unknown_arguments_as_errors():
        augment = instance("augment", config["augment"])
    data = data_source("data", config["data"], seed=config["seed"])
    data.preprocess = preprocessing(config["preprocess"])
    data.augment = augment
    if config.get("mix"):  # a preview mixes nothing
        data.mix = instance("mix", config["mix"])
    return data


def data_source(key: str, node: Node, **extra: Any) -> LesionDataModule:
    """Builds a data module as its node says, without augmentation."""
    data = instance(key, node, **extra)
    if not isinstance(data, LesionDataModule):
        raise SkinsegError(f"{key}._target_={node['_target_']} is not a LesionDataModule.")
    return data


def test_datamodule(config: Plain, data: LesionDataModule) -> LesionDataModule:
    """Builds the data module of the test: `test_data` without what `data` has too, or `data` itself."""
    node = config["test_data"]
    if not node:
        return data
    if node.get("overfit") is not None or "split" in node:
        raise SkinsegError(
            "test_data is the test subset as a whole; leave out test_data.overfit and test_data.split."
        )
    split = partial(whole_test_subset, train=data.catalog, overlap=config["test_overlap"])
    module = data_source("test_data", node, split=split, seed=config["seed"])
    module.preprocess = data.preprocess
    try:
        module.split  # noqa: B018 -- reads the data
    except SkinsegError as error:
        # The readers know one data set and call its keys data.*.
        raise SkinsegError(
            re.sub(r"(?<![\w./-])data\.(?=[a-z_.]+(=|:))", "test_data.", str(error))
        ) from error
    return module


def segmenter(config: Plain) -> LesionSegmenter:
    """Builds the LightningModule, with the weights of `init_from` where that is set.

    Args:
        config: The resolved configuration.
    """
    built = net(config)
    if config["gradient_checkpointing"]:
        checkpoint_gradients(built.network)
    supervision = None
    if config["deep_supervision"] is not None:
        height, width = config["data"]["image_size"]
        supervision = DeepSupervision(built.network, config["deep_supervision"], image_size=(height, width))
    module = LesionSegmenter(
        built,
        instance("loss", config["loss"]),
        optimizer=instance("optimizer", config["optimizer"]),
        scheduler=instance("scheduler", config["scheduler"]),
        seed=config["seed"],
        lr_scaling=config["lr_scaling"],
        lr_reference_batch=config["lr_reference_batch"],
        compile_mode=config["compile"],
        deep_supervision=supervision,
    )
    if config["init_from"] is not None:
        checkpoint = trusted_checkpoint(config["init_from"], key="init_from", trust=trusted(config))
        take_weights(module.net, checkpoint, key="init_from")
    return module


def check_start(config: Plain) -> None:
    """Refuses what cannot be trained, before any data are read: builds it once without fetching weights.

    Raises:
        SkinsegError: Parts of the configuration do not go together or refuse their arguments, `init_from` is
            of another architecture or no checkpoint, or a folder cannot be written.
    """
    with torch.random.fork_rng(devices=[]):  # the network of the run is drawn as if there were no check
        module = segmenter({**config, "model": without_weights(config["model"])})
        module.check_optimization()
        _check_sizes(callbacks(config), module, config)
    for key, folder in _written_folders(config):
        check_folder(key, folder)


def _written_folders(config: Plain) -> Iterator[tuple[str, Path]]:
    """Yields the folders that a run writes to beside its own, and the keys that name them."""
    run_dir = Path(config["run_dir"]).absolute()
    for group in ("data", "test_data"):
        if (config[group] or {}).get("cache") == "memmap" and "cache_dir" in config[group]:
            yield f"{group}.cache_dir", Path(config[group]["cache_dir"]).expanduser()
    for group, names in (("callbacks", ("dirpath", "path")), ("logger", ("save_dir",))):
        for member, node in (config[group] or {}).items():
            for name in names:
                value = (node or {}).get(name)
                if isinstance(value, str) and "://" not in value:
                    folder = Path(value).absolute() if name != "path" else Path(value).absolute().parent
                    if not folder.is_relative_to(run_dir):
                        yield f"{group}.{member}.{name}", folder


def callbacks(config: Plain) -> list[Callback]:
    """Builds the callbacks that are not null."""
    nodes = (config["callbacks"] or {}).items()
    built = [of_lightning(f"callbacks.{name}", node) for name, node in nodes if node is not None]
    for callback in built:
        if isinstance(callback, BestAndLast) and config["ckpt_path"] is not None:
            callback.resumed_from = Path(config["ckpt_path"]).expanduser()
        if isinstance(callback, EarlyStopping):
            _keep_patience(callback)
    if any((config["logger"] or {}).values()):
        return built
    # Lightning refuses it where nothing could take its numbers.
    return [callback for callback in built if not isinstance(callback, LearningRateMonitor)]


def _keep_patience(callback: EarlyStopping) -> None:
    """Lets a resumed run wait as long as it is told to; Lightning takes the first one's patience."""
    patience, load_state_dict = callback.patience, callback.load_state_dict

    def load_all_else(state_dict: dict[str, Any]) -> None:
        load_state_dict({**state_dict, "patience": patience})

    callback.load_state_dict = load_all_else  # type: ignore[method-assign]


def _check_sizes(callbacks: Iterable[Callback], segmenter: LesionSegmenter, config: Plain) -> None:
    """Refuses a size of progressive resizing that the network does not train at.

    Raises:
        SkinsegError: There is one.
    """
    height, width = config["data"]["image_size"]
    for callback in callbacks:
        if isinstance(callback, ProgressiveResizing):
            callback.check(segmenter.network, (height, width), config["data"]["batch_size"])


def loggers(config: Plain, resumed: dict[str, Any] | None = None) -> list[Logger]:
    """Builds the loggers that are not null.

    Args:
        config: The resolved configuration.
        resumed: The checkpoint that the run resumes from, whose metrics it goes on with.
    """
    run_id = None if resumed is None else RunRecord.of(resumed).wandb_run
    built = []
    for name, node in (config["logger"] or {}).items():
        if node is None:
            continue
        continued: dict[str, Any] = (
            {"id": run_id} if run_id is not None and node.get("id", "") is None else {}
        )
        logger = of_lightning(f"logger.{name}", node, **continued)
        if resumed is not None and isinstance(logger, CSVLogger):
            go_on_from(logger, Path(config["ckpt_path"]).expanduser(), resumed["global_step"])
        built.append(logger)
    return built
