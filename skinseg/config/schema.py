"""What can be in a configuration: the keys at its root, and those of the nodes that are ours."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

Node = dict[str, Any]


Plain = dict[str, Any]


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
        test: Score the test side at the end, with the best checkpoint.
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
        test_data: Another data set, all of it the test side instead of that of `data`. Empty: none.
        test_overlap: "exclude" leaves images and lesions of `data` out of `test_data`; "refuse" ends the run.
        model: The network.
        loss: Training objective of (logits, masks).
        preprocess: What is done to every image at the network's input size: in training, validation, test,
            evaluation and prediction.
        augment: Augmentation of training images.
        mix: Mixing of the images of a training batch with one another. Empty: none.
        optimizer: Of the parameters (partial).
        scheduler: Of the optimizer and the number of steps (partial).
        trainer: lightning.Trainer without callbacks and loggers.
        callbacks: Callbacks by name; null leaves one out.
        logger: Loggers by name; null leaves one out.
    """

    name: str
    run_dir: str
    seed: int
    monitor: str
    mode: typing.Literal["max", "min"]
    threshold: float
    channels_last: bool
    lr_scaling: typing.Literal["none", "linear", "sqrt"]
    lr_reference_batch: int
    compile: typing.Literal["default", "reduce-overhead", "max-autotune"] | None
    gradient_checkpointing: bool
    deep_supervision: list[float] | None
    find: typing.Literal["batch_size", "lr"] | None
    threads: int | None
    matmul_precision: typing.Literal["highest", "high", "medium"]
    test: bool
    ckpt_path: str | None
    init_from: str | None
    trust: str | list[str]
    budget: BudgetConfig
    sweep: SweepConfig
    search: SearchConfig | None
    group: str | None
    job_type: str
    tags: list[str]
    notes: str | None
    data: Node
    test_data: Node | None
    test_overlap: typing.Literal["exclude", "refuse"]
    model: Node
    loss: Node
    preprocess: Node
    augment: Node
    mix: Node | None
    optimizer: Node
    scheduler: Node
    trainer: Node
    callbacks: dict[str, Node | None] | None
    logger: dict[str, Node | None] | None


OURS = {
    "data": {"augment", "mix", "preprocess", "seed"},
    "test_data": {"augment", "mix", "preprocess", "seed"},
    "trainer": {"callbacks", "logger", "plugins", "enable_checkpointing", "enable_progress_bar"},
}
"""Arguments that `build` gives itself; in a configuration they would silently do nothing."""


ADDED = frozenset({"experiment", "debug", "sweep"})
"""Groups of which there is no option unless one is added with a + before it."""
