"""The only place that turns configuration into objects; everything below it takes plain values."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, LearningRateMonitor, ProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loops.evaluation_loop import RestartStage
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from skinseg.callbacks.checkpoint import BestAndLast
from skinseg.callbacks.metrics_file import go_on_from
from skinseg.callbacks.quiet import unknown_arguments_as_errors
from skinseg.callbacks.resizing import ProgressiveResizing
from skinseg.callbacks.writing import WholeCheckpointIO
from skinseg.config.check import preprocess_node
from skinseg.config.rules import HALF_PRECISIONS
from skinseg.config.schema import Node, Plain
from skinseg.config.targets import HYDRA_KEYS, imported_signature, reason_of_import
from skinseg.data.changes import Preprocessing
from skinseg.data.datamodule import LesionDataModule, default_workers, warn_of_workers
from skinseg.data.photographs import DEFAULT_MAX_MEGAPIXELS
from skinseg.data.splits import whole_test_side
from skinseg.errors import SkinsegError
from skinseg.inference.predictor import Predictor
from skinseg.machine import check_folder
from skinseg.models.deep_supervision import DeepSupervision
from skinseg.models.ensemble import Ensemble
from skinseg.models.net import LesionNet
from skinseg.models.networks import build_network, checkpoint_gradients, normalization
from skinseg.models.segmenter import LesionSegmenter
from skinseg.run.checkpoint import load_weights
from skinseg.trust import trusted, trusted_checkpoint

# Arguments by which a network fetches weights.
_FETCHED = frozenset({"encoder_weights", "pretrained"})

# What constructors raise for arguments that they do not like.
_REFUSALS = (TypeError, ValueError, KeyError, UserWarning, NotImplementedError, MisconfigurationException)

# Where Lightning reads the variables of Slurm, torchrun and others, and what it raises about them.
_ENVIRONMENTS = "lightning.fabric.plugins.environments."
_LAUNCH_ERRORS = (RuntimeError, ValueError, KeyError)


def instance(key: str, node: Node, **extra: Any) -> Any:
    """Calls a node's constructor with plain values, those of the nodes within it first.

    Texts are taken literally: nothing is filled in of what reads `${...}`, which composing has done before.

    Args:
        key: Where the node stands, for the message.
        node: With `_target_`. One out of a file has to be checked before; see `skinseg.trust`.
        **extra: Further arguments, as they are. Of a partial there are none.

    Raises:
        SkinsegError: The constructor refused its arguments.
    """
    arguments = _arguments(key, node)
    constructor = partial(_target(key, node), *arguments.pop("_args_", ()), **arguments)
    if node.get("_partial_"):
        return constructor
    try:
        return constructor(**extra)
    except _REFUSALS as error:
        raise SkinsegError(f"{key}: {node['_target_']} refused its arguments: {_words(error)}") from error
    except ImportError as error:
        raise SkinsegError(
            f"{key}: {node['_target_']} needs what cannot be imported ({reason_of_import(error)}); mend that "
            "installation, or leave it out."
        ) from error


def _target(key: str, node: Node) -> partial[Any]:
    """Returns a node's constructor, without its arguments, which Hydra would resolve once more.

    Hydra refuses dangerous ones, now and when it is called.
    """
    try:
        found: partial[Any] = instantiate({"_target_": node["_target_"], "_partial_": True})
    except InstantiationException as error:
        refused = error.__cause__ is None
        why = str(error).splitlines()[0] if refused else f"cannot be imported ({reason_of_import(error)})."
        raise SkinsegError(f"{key}._target_={node['_target_']}: {why}") from error
    return found


def _arguments(key: str, node: Node) -> dict[str, Any]:
    """Returns what a node's constructor is to be given, the nodes within it built."""
    own = {name: value for name, value in node.items() if name not in HYDRA_KEYS}
    if not node.get("_recursive_", True):
        return own
    return {name: _built(f"{key}.{name}", value) for name, value in own.items()}


def _built(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        if "_target_" in value:
            return instance(key, value)
        return {name: _built(f"{key}.{name}", child) for name, child in value.items()}
    if isinstance(value, list):
        return [_built(f"{key}[{index}]", child) for index, child in enumerate(value)]
    return value


def _words(error: BaseException) -> str:
    """Returns what an error says, in one line where albumentations' validation wrote it."""
    lines = [line.strip() for line in str(error).splitlines()]
    if not lines or "validation error" not in lines[0]:
        return str(error)
    fields = zip(lines[1::3], lines[2::3], strict=False)
    return "; ".join(f"{field}: {said.partition(' [type=')[0]}" for field, said in fields)


def datamodule(config: Plain) -> LesionDataModule:
    """Builds the data module with its preprocessing, augmentation and mixing."""
    with unknown_arguments_as_errors():
        augment = instance("augment", config["augment"])
    data = data_source("data", config["data"], seed=config["seed"])
    data.preprocess = preprocessing(config)
    data.augment = augment
    if config.get("mix"):  # older runs have no word of it
        data.mix = instance("mix", config["mix"])
    return data


def preprocessing(config: Plain) -> Preprocessing | None:
    """Builds what is done to every image.

    Args:
        config: The resolved configuration of a run. Those of older runs have no preprocessing.
    """
    node = preprocess_node(config)
    if node is None:
        return None
    with unknown_arguments_as_errors():
        built: Preprocessing | None = instance("preprocess", node)
    return built


def data_source(key: str, node: Node, **extra: Any) -> LesionDataModule:
    """Builds a data module as its node says, without augmentation."""
    data = instance(key, node, **extra)
    if not isinstance(data, LesionDataModule):
        raise SkinsegError(f"{key}._target_={node['_target_']} is not a LesionDataModule.")
    return data


def test_datamodule(config: Plain, data: LesionDataModule) -> LesionDataModule:
    """Builds the data module of the test side: `test_data` without what `data` has too, or `data` itself."""
    node = config["test_data"]
    if not node:
        return data
    if node.get("overfit") is not None or "split" in node:
        raise SkinsegError(
            "test_data is the test side as a whole; leave out test_data.overfit and test_data.split."
        )
    split = partial(whole_test_side, train=data.catalog, overlap=config["test_overlap"])
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


def network(config: Plain) -> nn.Module:
    """Builds the network, with the encoder's weights."""
    return _network(config["model"], config)


def _network(node: Node, config: Plain) -> nn.Module:
    constructor = _target("model", node)
    height, width = config["data"]["image_size"]
    return build_network(
        constructor.func,
        {**constructor.keywords, **_arguments("model", node)},
        image_size=(height, width),
        batch_size=config["data"]["batch_size"],
        channels_last=config["channels_last"],
    )


def segmenter(config: Plain, record: dict[str, Any] | None = None) -> LesionSegmenter:
    """Builds the LightningModule, with the weights of `init_from` where that is set.

    Args:
        config: The resolved configuration.
        record: What each checkpoint is to carry.
    """
    net = network(config)
    if config["gradient_checkpointing"]:
        checkpoint_gradients(net)
    fit = {key: config[key] for key in ("lr_scaling", "lr_reference_batch")}
    fit["compile_mode"] = config["compile"]
    if config["deep_supervision"] is not None:
        height, width = config["data"]["image_size"]
        fit["deep_supervision"] = DeepSupervision(net, config["deep_supervision"], image_size=(height, width))
    module = _segmenter(net, config["model"], config, record, fit)
    if config["init_from"] is not None:
        checkpoint = trusted_checkpoint(config["init_from"], key="init_from", trust=trusted(config))
        _take_weights(module, checkpoint, key="init_from")
    return module


def check_start(config: Plain) -> None:
    """Refuses what cannot be trained, before any data are read: builds it once without fetching weights.

    Raises:
        SkinsegError: Parts of the configuration do not go together or refuse their arguments, `init_from` is
            of another architecture or no checkpoint, or a folder cannot be written.
    """
    with torch.random.fork_rng(devices=[]):  # the network of the run is drawn as if there were no check
        module = segmenter({**config, "model": _without_weights(config["model"])})
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


def _take_weights(module: LesionSegmenter, checkpoint: dict[str, Any], *, key: str) -> None:
    """Gives a segmenter the weights of a checkpoint, and the normalization that they were trained with."""
    load_weights(module.network, checkpoint, key=key)
    for name in ("mean", "std"):
        getattr(module.net, name).copy_(checkpoint["state_dict"][name])


def _segmenter(
    net: nn.Module,
    node: Node,
    config: Plain,
    record: dict[str, Any] | None,
    fit: Mapping[str, Any] | None = None,
) -> LesionSegmenter:
    mean, std = normalization(node.get("encoder_name"), node.get("encoder_weights"))
    return LesionSegmenter(
        LesionNet(
            net,
            mean=mean,
            std=std,
            threshold=config["threshold"],
            channels_last=config["channels_last"],
        ),
        instance("loss", config["loss"]),
        optimizer=instance("optimizer", config["optimizer"]),
        scheduler=instance("scheduler", config["scheduler"]),
        seed=config["seed"],
        **(fit or {}),
        record=record,
    )


def load_segmenter(path: str, trust: str | Sequence[str] = ()) -> LesionSegmenter:
    """Rebuilds a trained segmenter from its checkpoint alone.

    Args:
        path: `best.ckpt` or `last.ckpt` of a run, or an ensemble of some.
        trust: Packages whose constructors the checkpoint may name; see `skinseg.trust`.

    Returns:
        The segmenter in evaluation mode; its `record` holds the run's configuration.

    Raises:
        SkinsegError: The file is not a whole checkpoint of skinseg, or names what is not built from a file.
    """
    checkpoint = trusted_checkpoint(path, key="ckpt", trust=trust)
    record = checkpoint["skinseg"]
    config = record["config"]
    if "members" in record:
        net: nn.Module = Ensemble([LesionNet(_trained_network(member)) for member in record["members"]])
    else:
        net = _trained_network(config)
    module = _segmenter(net, {}, config, record)  # the checkpoint has the colour statistics
    _take_weights(module, checkpoint, key="ckpt")
    return module.eval()


def _trained_network(config: Plain) -> nn.Module:
    """Builds a network whose weights come from a checkpoint."""
    return _network(_without_weights(config["model"]), config)


def _without_weights(value: Any) -> Any:
    """Returns a node that fetches no weights, nor do those within it."""
    if isinstance(value, list):
        return [_without_weights(child) for child in value]
    if not isinstance(value, dict):
        return value
    named = set(value)
    if "_target_" in value:  # without a word of it some constructors would fetch a set
        named |= imported_signature(value["_target_"]).named
    children = {key: _without_weights(child) for key, child in value.items()}
    return {**children, **dict.fromkeys(_FETCHED & named)}


def predictor(segmenter: LesionSegmenter, config: Plain) -> Predictor:
    """Builds what applies a trained segmenter to files.

    Args:
        segmenter: What `load_segmenter` returned.
        config: device, precision, batch_size and num_workers, where null is as in the run that trained it,
            and max_megapixels, where it is not the default.
    """
    trained = segmenter.record["config"]
    height, width = trained["data"]["image_size"]
    precision, batch_size, num_workers = (config[key] for key in ("precision", "batch_size", "num_workers"))
    for key, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
        if value is not None and value < least:
            raise SkinsegError(f"{key}={value}: expected {least} or more.")
    max_megapixels = config.get("max_megapixels", DEFAULT_MAX_MEGAPIXELS)
    if not max_megapixels > 0:
        raise SkinsegError(f"max_megapixels={max_megapixels}: expected more than 0.")
    if num_workers is not None:
        warn_of_workers("num_workers", num_workers)
    return Predictor(
        segmenter.net,
        input_size=(height, width),
        preprocess=preprocessing(trained),
        batch_size=trained["data"]["batch_size"] if batch_size is None else batch_size,
        num_workers=default_workers() if num_workers is None else num_workers,
        device=config["device"],
        precision=trained["trainer"].get("precision", "32-true") if precision is None else precision,
        max_megapixels=max_megapixels,
    )


def callbacks(config: Plain) -> list[Callback]:
    """Builds the callbacks that are not null."""
    nodes = (config["callbacks"] or {}).items()
    built = [instance(f"callbacks.{name}", node) for name, node in nodes if node is not None]
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


def loggers(config: Plain, resumed: Mapping[str, Any] | None = None) -> list[Logger]:
    """Builds the loggers that are not null.

    Args:
        config: The resolved configuration.
        resumed: The checkpoint that the run resumes from, whose metrics it goes on with.
    """
    run_id = None if resumed is None else resumed["skinseg"]["wandb_run"]
    built = []
    for name, node in (config["logger"] or {}).items():
        if node is None:
            continue
        continued = {"id": run_id} if run_id is not None and node.get("id", "") is None else {}
        logger = instance(f"logger.{name}", node, **continued)
        if resumed is not None and isinstance(logger, CSVLogger):
            go_on_from(logger, Path(config["ckpt_path"]).expanduser(), resumed["global_step"])
        built.append(logger)
    return built


def settle_rank(config: Plain | None = None) -> int:
    """Makes this process the rank that the trainer takes it for, and returns how many processes there are.

    Lightning's helpers and loggers go by RANK, LOCAL_RANK or SLURM_PROCID, which may be left over from
    another program; a process that they take for a second one writes no file and no metric.

    Args:
        config: The resolved configuration of a training. None: of a command without a trainer, the only
            process.
    """
    rank, processes = 0, 1
    if config is not None:
        asked = trainer(config, [], [])
        rank, processes = asked.global_rank, asked.world_size
    rank_zero_only.rank = rank  # type: ignore[attr-defined]  # where Lightning keeps it
    return processes


def trainer(config: Plain, callbacks: list[Callback], loggers: list[Logger]) -> L.Trainer:
    """Builds the trainer.

    Raises:
        SkinsegError: A GPU is asked for where there is none, the options contradict each other, or what has
            started the processes has started others than the options say.
    """
    node = config["trainer"]
    if node.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
        raise SkinsegError(
            "trainer.accelerator=gpu: PyTorch finds no GPU here. Take trainer=cpu, or check that "
            f"`nvidia-smi` lists one and that PyTorch ({torch.__version__}) was built for CUDA "
            f"(here: {torch.version.cuda})."
        )
    with _launch_told(node):
        built = instance(
            "trainer",
            node,
            callbacks=callbacks,
            logger=loggers or False,
            plugins=[WholeCheckpointIO()],
            # Lightning would add its own where the configuration names none.
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        )
    assert isinstance(built, L.Trainer)
    _check_processes(built, node)
    if isinstance(built.accelerator, CPUAccelerator) and str(node.get("precision")) in HALF_PRECISIONS:
        raise SkinsegError(  # Lightning would train with another one
            f"trainer.precision={node['precision']}: PyTorch finds no GPU here; take bf16-mixed or 32-true."
        )
    # With trainer.max_steps Lightning takes a checkpoint of an epoch's end for one of its middle, and counts
    # the finished epoch again without training in it.
    built.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
    _resume_between_steps(built.fit_loop.epoch_loop)
    return built


@contextmanager
def _launch_told(node: Node) -> Iterator[None]:
    """Says what Lightning finds wrong with the variables by which a process learns which of several it is.

    Args:
        node: Of the trainer.

    Raises:
        SkinsegError: In place of an error about them.
    """
    try:
        yield
    except (SkinsegError, *_LAUNCH_ERRORS) as error:
        cause = error.__cause__ or error
        names = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(cause.__traceback__)]
        launcher = next((name for name in names if name.startswith(_ENVIRONMENTS)), None)
        if launcher is None:
            raise
        raise _wrongly_launched(launcher, cause, node) from error


def _check_processes(trainer: L.Trainer, node: Node) -> None:
    """Refuses processes that Slurm or torchrun has started otherwise than the trainer is told.

    Lightning asks only where it starts them itself. Those that are missing would be waited for without end,
    or their share of the images be left out.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None:  # a single process
        return
    try:
        environment.validate_settings(trainer.num_devices, trainer.num_nodes)
        started, meant = environment.world_size(), trainer.num_devices * trainer.num_nodes
        if started != meant:
            raise ValueError(f"there are {started} and not {meant}")
    except _LAUNCH_ERRORS as error:
        raise _wrongly_launched(type(environment).__module__, error, node) from error


def _wrongly_launched(launcher: str, error: BaseException, node: Node) -> SkinsegError:
    """Returns the message for processes that were not started as the trainer needs them.

    Args:
        launcher: The module of Lightning that knows what has started them.
        error: What it has raised.
        node: Of the trainer.
    """
    reason = f"{error} is not set" if isinstance(error, KeyError) else str(error).partition(" HINT: ")[0]
    asked = f"trainer.devices={node.get('devices', 'auto')} and trainer.num_nodes={node.get('num_nodes', 1)}"
    way_out = "Start with torchrun --nproc-per-node=<trainer.devices> --nnodes=<trainer.num_nodes>."
    if launcher.endswith(".slurm"):
        way_out = (
            "In a Slurm job with #SBATCH --ntasks-per-node=<trainer.devices> and --nodes=<trainer.num_nodes> "
            "(not --ntasks) start by srun, or take docs/slurm.sbatch. For a process of its own, or where the "
            "variables are left over: env -u SLURM_NTASKS <command>."
        )
    return SkinsegError(
        f"The processes of this training were not started for {asked} ({reason.rstrip('.')}). {way_out}"
    )


def _resume_between_steps(loop: _TrainingEpochLoop) -> None:
    """Lets a run go on from a checkpoint that was saved between two steps or two batches of validation.

    Lightning expects one that was saved within a step: it counts that step once more in what is logged, and
    takes a validation that had begun for finished. Here that validation begins anew.
    """
    validation, reset, update = loop.val_loop, loop.reset, loop.val_loop.update_restart_stage

    def update_restart_stage() -> None:
        update()
        progress = validation.batch_progress
        if validation.restarting and progress.current.completed < progress.current.ready:
            for count in ("ready", "started", "processed", "completed"):  # of batches that come again
                begun = getattr(progress.current, count)
                setattr(progress.total, count, getattr(progress.total, count) - begun)
            progress.reset_on_run()
            validation._restart_stage = RestartStage.RESTARTED_MID_EVALUATION

    def reset_to_steps() -> None:
        reset()
        # Of a batch that had come when the checkpoint was saved, and comes again.
        loop.batch_progress.total.ready = loop.batch_progress.total.completed
        # The step before a validation is counted after it, also where it was validated already.
        before = validation.restarted_mid_evaluation or loop.restarted_on_last
        loop._batches_that_stepped = loop.global_step - before

    # What is saved after a validation has counted it.
    validation.increment_progress_to_evaluation_end = lambda: None  # type: ignore[method-assign]
    validation.update_restart_stage = update_restart_stage  # type: ignore[method-assign]
    loop.reset = reset_to_steps  # type: ignore[method-assign]
