"""What can be in a configuration: the keys at its root, and those of the nodes that are ours."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

Node = dict[str, Any]


Plain = dict[str, Any]


class Scope(Enum):
    """What a key at the root is about, and with that, who takes two runs that differ in it for different.

    Attributes:
        METHOD: What is trained, on what.
        TEST: The test images.
        REPEAT: What two trainings of one method may differ in.
        WHETHER: Whether the test is scored.
        PLACE: Where a run lies and where it begins.
        MACHINE: What a machine has or trusts.
        LABEL: How a run is called, and who hears of it.
        LAUNCH: What starts runs, of which the run itself knows nothing.
    """

    METHOD = "method"
    TEST = "test"
    REPEAT = "repeat"
    WHETHER = "whether"
    PLACE = "place"
    MACHINE = "machine"
    LABEL = "label"
    LAUNCH = "launch"


_COUNTED: Mapping[str, Set[Scope]] = {
    "method": {Scope.METHOD, Scope.TEST},
    "job": {Scope.METHOD, Scope.TEST, Scope.REPEAT, Scope.WHETHER},
    "search": {Scope.METHOD, Scope.REPEAT, Scope.PLACE},
}

DATA_PLACES = frozenset(
    {
        "root",
        "images",
        "metadata",
        "num_workers",
        "verify",
        "max_megapixels",
        "cache",
        "cache_dir",
        "cache_limit_gb",
        "cache_check",
    }
)
"""Keys of `data` and `test_data` by which the images are found and read, but do not become others."""


def not_counted(comparison: Literal["method", "job", "search"]) -> frozenset[str]:
    """Returns the root keys in which two runs may differ and still be the same.

    Args:
        comparison: The same method, the same job of a sweep, or trials of the same search.
    """
    hints = typing.get_type_hints(RootConfig, include_extras=True)
    scopes = {key: hint.__metadata__[0] for key, hint in hints.items()}
    return frozenset(key for key, scope in scopes.items() if scope not in _COUNTED[comparison])


@dataclass
class BudgetConfig:
    """How long a run trains; both null: `trainer.max_epochs` epochs, or `trainer.max_steps` steps.

    Attributes:
        steps: Optimizer steps, at most: divided into equal parts, at whose ends the network is validated.
        minutes: Of training, validation not counted. A trial of some steps before the run says how many steps
            that is.
        validations: The number of parts; more where one would be longer than an epoch.
    """

    steps: int | None
    minutes: float | None
    validations: int


@dataclass
class SweepConfig:
    """What a multirun does beside its jobs; each job itself does not depend on it.

    Attributes:
        resume: Leave out jobs that an earlier sweep below the same folder has finished with the same
            configuration, and go on with those that it has not.
        compare: Compare the jobs that have test scores at the end; see `skinseg.compare`.
        metric: What ranks them then.
    """

    resume: bool
    compare: bool
    metric: str


@dataclass
class SearchConfig:
    """A search for hyper-parameters by validation scores, in place of one run; see docs/search.md.

    Attributes:
        study: Its name in the storage.
        storage: Where the trials are kept, for all processes and machines that share them: a path that ends
            in .log (a journal file) or the URL of a database that SQLAlchemy knows. null: journal.log in the
            run folder.
        trials: In all, those of earlier and other processes of the study with them.
        jobs: Trials side by side in this process.
        space: Of each key of the configuration either `choices`, or `low` and `high` (both included), with
            `log: true` for an even spread over orders of magnitude, or `step`. Whole numbers stay whole. A
            key may be a group: its choices are options.
        sampler: Of optuna.samplers: what to try next.
        pruner: Of optuna.pruners: which trials are not worth going on with; its steps are validations. null:
            none is stopped.
    """

    study: str
    storage: str | None
    trials: int
    jobs: int
    space: dict[str, dict[str, Any]]
    sampler: Node
    pruner: Node | None


@dataclass
class RootConfig:
    """Every key at the root of an experiment's configuration. Nodes name a constructor in `_target_`.

    Attributes:
        name: Name of the experiment; part of the run folder's path.
        run_dir: The run folder.
        seed: Seed of weights, order and augmentation. The split has its own, `data.split.seed`.
        monitor: The score that chooses the checkpoint and is the objective of a sweep.
        mode: "max" or "min": which direction of `monitor` is better.
        threshold: Lesion is where the probability is at least this.
        channels_last: Memory layout NHWC; faster convolutions on most CPUs and GPUs.
        lr_scaling: "linear" or "sqrt" multiplies optimizer.lr by the batch of all processes and accumulated
            steps, or its square root, as a share of lr_reference_batch. "none": as it is.
        lr_reference_batch: The batch, in images, that optimizer.lr is meant for.
        compile: "default", "reduce-overhead" (CUDA graphs) or "max-autotune" compiles the network for
            training with torch.compile: minutes at the start, then faster steps on most GPUs. Needs a C++
            compiler on the CPU, Triton on a GPU; where it fails the run goes on without and says why.
            null: not compiled.
        gradient_checkpointing: Compute the encoder's features again in the backward pass instead of keeping
            them: less memory, more time. For the encoders of timm that can (`tu-...`).
        deep_supervision: Weights of further losses in training, of what the decoder's blocks before the last
            give, the finest first: part of train/loss, not of val/loss. For model=unet, unetplusplus, manet,
            linknet, plain_unet, resunet and egeunet. null: the loss of the output alone.
        find: "batch_size" looks for the largest batch that fits the device, "lr" for a learning rate, before
            the run, which then uses it and has it in its config.yaml. null: what is configured.
        threads: Threads of PyTorch on the CPU. null: PyTorch's choice.
        matmul_precision: "highest", "high" or "medium": float32 products on GPUs with tensor cores.
        test: Score the test subset at the end, with the best checkpoint: scores of each image, intervals,
            strata, predicted masks, a model card and a report.
        report: Write the report, a page; the rest of the test's results are written anyway.
        ckpt_path: A checkpoint to resume from: weights, optimizer, schedule, epoch.
        init_from: A checkpoint to take the weights from, nothing else.
        trust: Packages of your own, or of somebody whom you trust, that a checkpoint may name beside those of
            this configuration; see `skinseg.build.trust`.
        budget: How long a run trains, where that is to be the same for several; see `BudgetConfig`.
        sweep: What a multirun does beside its jobs; see `SweepConfig`.
        search: Trials in place of one run; see `SearchConfig`. null: one run.
        group: Runs that belong together, in Weights & Biases. null: in a sweep the sweep, else none.
        job_type: What the run does, in Weights & Biases.
        tags: Words to find the run by.
        notes: A sentence on the run.
        data: The LightningDataModule: reader, split, loaders.
        test_data: Another data set, all of it the test subset instead of that of `data`. Empty: none.
        test_overlap: "exclude" leaves images and lesions of `data` out of `test_data`; "refuse" ends the run.
        model: The network.
        loss: Training objective of (logits, masks).
        preprocess: What is done to every image at the network's input size: in training, validation, test,
            evaluation and prediction.
        augment: Augmentation of training images.
        mix: Mixing of the images of a training batch with one another. Empty: none.
        optimizer: Partial: given the parameters, makes the optimizer.
        scheduler: Partial: given the optimizer and the number of steps, makes the schedule.
        trainer: lightning.Trainer without callbacks and loggers.
        callbacks: Callbacks by name; null leaves one out.
        logger: Loggers by name; null leaves one out.
    """

    name: Annotated[str, Scope.REPEAT]
    run_dir: Annotated[str, Scope.PLACE]
    seed: Annotated[int, Scope.REPEAT]
    monitor: Annotated[str, Scope.METHOD]
    mode: Annotated[Literal["max", "min"], Scope.METHOD]
    threshold: Annotated[float, Scope.METHOD]
    channels_last: Annotated[bool, Scope.METHOD]
    lr_scaling: Annotated[Literal["none", "linear", "sqrt"], Scope.METHOD]
    lr_reference_batch: Annotated[int, Scope.METHOD]
    compile: Annotated[Literal["default", "reduce-overhead", "max-autotune"] | None, Scope.REPEAT]
    gradient_checkpointing: Annotated[bool, Scope.REPEAT]
    deep_supervision: Annotated[list[float] | None, Scope.METHOD]
    find: Annotated[Literal["batch_size", "lr"] | None, Scope.REPEAT]
    threads: Annotated[int | None, Scope.MACHINE]
    matmul_precision: Annotated[Literal["highest", "high", "medium"], Scope.REPEAT]
    test: Annotated[bool, Scope.WHETHER]
    report: Annotated[bool, Scope.LABEL]
    ckpt_path: Annotated[str | None, Scope.PLACE]
    init_from: Annotated[str | None, Scope.METHOD]
    trust: Annotated[str | list[str], Scope.MACHINE]
    budget: Annotated[BudgetConfig, Scope.METHOD]
    sweep: Annotated[SweepConfig, Scope.LAUNCH]
    search: Annotated[SearchConfig | None, Scope.LAUNCH]
    group: Annotated[str | None, Scope.LABEL]
    job_type: Annotated[str, Scope.LABEL]
    tags: Annotated[list[str], Scope.LABEL]
    notes: Annotated[str | None, Scope.LABEL]
    data: Annotated[Node, Scope.METHOD]
    test_data: Annotated[Node | None, Scope.TEST]
    test_overlap: Annotated[Literal["exclude", "refuse"], Scope.TEST]
    model: Annotated[Node, Scope.METHOD]
    loss: Annotated[Node, Scope.METHOD]
    preprocess: Annotated[Node, Scope.METHOD]
    augment: Annotated[Node, Scope.METHOD]
    mix: Annotated[Node | None, Scope.METHOD]
    optimizer: Annotated[Node, Scope.METHOD]
    scheduler: Annotated[Node, Scope.METHOD]
    trainer: Annotated[Node, Scope.METHOD]
    callbacks: Annotated[dict[str, Node | None] | None, Scope.REPEAT]
    logger: Annotated[dict[str, Node | None] | None, Scope.LABEL]


OURS = {
    "data": {"augment", "mix", "preprocess", "seed"},
    "test_data": {"augment", "mix", "preprocess", "seed"},
    "trainer": {"callbacks", "logger", "plugins", "enable_checkpointing", "enable_progress_bar"},
}
"""Arguments that `build` gives itself; in a configuration they would silently do nothing."""


ADDED = frozenset({"experiment", "debug", "sweep"})
"""Groups of which there is no option unless one is added with a + before it."""
