"""The LightningModule around any network that maps images to logits."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from skinseg.errors import SkinsegError
from skinseg.models.counts import ImageCounts, SubsetScores, confusion_counts
from skinseg.models.deep_supervision import DeepSupervision
from skinseg.models.net import LesionNet, resize
from skinseg.models.schedulers import StepAtValidation
from skinseg.models.watch import STEPS_BETWEEN_LOOKS, LossWatch, NonFiniteLossError
from skinseg.run.record import RunRecord
from skinseg.scoring.overlap import OVERLAP_METRICS, overlap_scores

log = logging.getLogger(__name__)

LrScaling = Literal["none", "linear", "sqrt"]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SchedulerFactory = Callable[[torch.optim.Optimizer, int], dict[str, Any]]


class LesionSegmenter(L.LightningModule):
    """Trains a network on lesion masks and scores it per image at native size.

    In evaluation the probabilities are resized bilinearly to the image's own size and then compared with the
    threshold.

    Args:
        net: What is trained.
        loss: Maps logits and uint8 masks of 0 and 1, both (B, 1, H, W), to a scalar.
        optimizer: Makes an optimizer of parameters.
        scheduler: Makes Lightning's lr_scheduler_config of optimizer and number of steps.
        seed: Seed of dropout and the like in each step.
        lr_scaling: How the learning rate grows with the batch of all processes and accumulated steps: "none",
            "linear" (Goyal et al. 2017, arXiv:1706.02677) or "sqrt", which suits Adam (Malladi et al.,
            NeurIPS 2022).
        lr_reference_batch: The batch, in images, that the configured learning rate is meant for.
        compile_mode: How torch.compile compiles the network for training. None: not at all.
        deep_supervision: Further losses of the network in training, added to `loss`. None: none.
        record: Plain values that every checkpoint carries under "skinseg": the resolved config, the split's
            fingerprint.
    """

    net: LesionNet
    network: nn.Module

    def __init__(
        self,
        net: LesionNet,
        loss: nn.Module,
        *,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        seed: int = 0,
        lr_scaling: LrScaling = "none",
        lr_reference_batch: int = 16,
        compile_mode: str | None = None,
        deep_supervision: DeepSupervision | None = None,
        record: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # Checkpoints have its parts without a net before their names: the network is registered here as well,
        # and both have one table of buffers, so that what moves the one moves the other.
        object.__setattr__(self, "net", net)
        self.network = net.network
        self._buffers = net._buffers
        self.loss = loss
        self._optimizer = optimizer
        self._scheduler = scheduler
        self.seed = seed
        self._lr_scaling = lr_scaling
        self._lr_reference_batch = lr_reference_batch
        self._compile_mode = compile_mode
        self._compiled = False
        self.deep_supervision = deep_supervision
        self.record = record or {}
        self.counts = nn.ModuleDict({"val": ImageCounts(), "test": ImageCounts()})
        self.scores: dict[str, SubsetScores] = {}
        self.seconds_before = 0.0  # of training, by the run that is resumed
        self._fit_began = time.monotonic()
        self.watch = LossWatch(every=1)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits of shape (B, 1, H, W) for uint8 RGB images of shape (B, 3, H, W)."""
        try:
            logits: Tensor = self.net(images)
        except Exception as error:
            if not self._compiled or not _is_compilers(error):
                raise
            self._go_on_uncompiled(error)
            logits = self.net(images)
        return logits

    def configure_optimizers(self) -> Any:
        """Builds optimizer and schedule; the schedule spans all steps of the run."""
        steps = self.trainer.estimated_stepping_batches
        if not np.isfinite(steps):
            raise SkinsegError(
                "trainer.max_epochs=-1 without trainer.max_steps: the schedule needs an end; set one."
            )
        optimizer, schedule = self._optimization(max(1, int(steps)), self._make_optimizer)
        if isinstance(schedule["scheduler"], ReduceLROnPlateau) or schedule.get("reduce_on_plateau"):
            schedule["frequency"] = sys.maxsize  # Lightning keeps its state; StepAtValidation steps it
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def check_optimization(self) -> None:
        """Builds optimizer and schedule once, before there are data or a trainer.

        Raises:
            SkinsegError: One of them refuses its arguments.
        """
        self._optimization(1000, lambda: self._optimizer(self.parameters()))

    def _optimization(
        self, steps: int, make_optimizer: Callable[[], torch.optim.Optimizer]
    ) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
        try:
            optimizer = make_optimizer()
            schedule = self._scheduler(optimizer, steps)
        except (TypeError, ValueError, RuntimeError) as error:
            raise SkinsegError(f"optimizer or scheduler: arguments refused: {error}") from error
        if not isinstance(schedule, dict) or "scheduler" not in schedule:
            raise SkinsegError(
                f"scheduler: {type(schedule).__name__} is no schedule; expected a dictionary with a key "
                "scheduler, such as those of skinseg.models.schedulers."
            )
        return optimizer, schedule

    def configure_callbacks(self) -> list[Callback]:
        """Adds what steps a schedule that follows a score."""
        return [StepAtValidation()]

    def _make_optimizer(self) -> torch.optim.Optimizer:
        optimizer = self._optimizer(self.parameters())
        if optimizer.defaults.get("fused") and not self._steps_fused():
            where = self.device.type + ("" if self.device_mesh is None else " with sharded weights")
            log.warning("optimizer.fused=true: not on %s here; stepping unfused.", where)
            # A keyword of the call takes the place of the configured one.
            optimizer = self._optimizer(self.parameters(), fused=False)  # type: ignore[call-arg]
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            # A fused step would unscale fp16 gradients itself, after they were clipped, for which Lightning
            # refuses to clip in all mixed precisions. Without this mark they are unscaled before.
            optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        self._scale_lr(optimizer)
        return optimizer

    def _scale_lr(self, optimizer: torch.optim.Optimizer) -> None:
        if self._lr_scaling == "none":
            return
        trainer = self.trainer
        batch = trainer.datamodule.batch_size * trainer.world_size  # type: ignore[attr-defined]
        batch *= trainer.accumulate_grad_batches
        factor = batch / self._lr_reference_batch
        factor = factor if self._lr_scaling == "linear" else math.sqrt(factor)
        for group in optimizer.param_groups:
            group["lr"] *= factor
        log.info("Learning rate %.3g for batches of %d.", optimizer.param_groups[0]["lr"], batch)

    def _steps_fused(self) -> bool:
        """Returns whether this device can; the optimizers tell at their first step, and then by an error."""
        sharded = self.device_mesh is not None
        like = next(self.parameters()) if sharded else torch.empty(1, device=self.device)
        weight = nn.Parameter(torch.zeros_like(like))
        weight.grad = torch.zeros_like(weight)
        try:
            self._optimizer([weight]).step()
        except RuntimeError:
            return False
        return True

    def setup(self, stage: str) -> None:
        """Brings the weights into the chosen memory layout, and compiles the network for a fit."""
        if self.device_mesh is None:  # only contiguous weights can be sharded
            self.network.to(memory_format=self.net.memory_format)
        if stage == "fit" and self._compile_mode is not None:
            self._compiled = True
            try:
                # In place: the names of the weights in a checkpoint stay what they are.
                self.network.compile(mode=self._compile_mode)
            except RuntimeError as error:  # a platform that PyTorch has no compiler for
                self._go_on_uncompiled(error)

    def configure_model(self) -> None:
        """Shards the network where the strategy has made a mesh of the processes (trainer=fsdp)."""
        if self.device_mesh is None:
            return
        if next(self.loss.parameters(), None) is not None:
            raise SkinsegError(
                f"loss: {type(self.loss).__name__} has weights of its own, which are not sharded; take "
                "trainer=ddp."
            )
        from skinseg.models.sharding import shard_network  # not every PyTorch has what it imports

        image_size = self.trainer.datamodule.image_size  # type: ignore[attr-defined]
        shard_network(self.network, self.device_mesh["data_parallel"], image_size)

    def _go_on_uncompiled(self, error: Exception) -> None:
        log.warning(
            "compile=%s: %s cannot be compiled here; going on uncompiled. %s",
            self._compile_mode,
            type(self.network).__name__,
            _reason(error),
        )
        self._compiled = False
        self.network._compiled_call_impl = None

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Seeds the step by its number, so that a resumed run draws what the first would have drawn."""
        state = np.random.SeedSequence([self.seed, self.global_step, batch_idx, self.global_rank])
        seed = int(state.generate_state(1)[0])
        # torch.manual_seed would also queue the seed for every kind of device that is not here, which takes
        # longer than the rest of this method.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.manual_seed(seed)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Returns the loss of a batch, with those of deep supervision.

        Of a batch with a "share" it is the share of the loss of the first masks, and the rest of that of the
        second ones.

        Raises:
            NonFiniteLossError: It is NaN or infinite, or that of a step since the last look was; the batch's
                images are named.
        """
        loss_of = partial(_mixed_loss, self.loss, batch["share"]) if "share" in batch else self.loss
        loss: Tensor = loss_of(self(batch["image"]), batch["mask"])
        if self.deep_supervision is not None:
            loss = loss + self.deep_supervision(loss_of, batch["mask"])
        self.watch.add(loss, self.current_epoch, self.global_step, batch["image_id"])
        size = len(batch["image"])
        if self._logs_this_step():
            self.log("train/loss_step", loss, on_step=True, on_epoch=False, batch_size=size)
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=size, sync_dist=True
        )
        return loss

    def on_fit_start(self) -> None:
        """Decides how often to look at the losses: on the processor a look costs nothing."""
        self.watch = LossWatch(every=1 if self.device.type == "cpu" else STEPS_BETWEEN_LOOKS)
        self._fit_began = time.monotonic()

    def on_train_start(self) -> None:
        """Lays out an optimizer's loaded state as its weights are.

        A fused step takes the numbers in the order of the memory, and the checkpoint may be of a run with
        another layout: sharded, or with another `channels_last`.
        """
        for optimizer in self.trainer.optimizers:
            for weight, state in optimizer.state.items():
                for name, value in state.items():
                    if not isinstance(value, Tensor) or value.shape != weight.shape:
                        continue
                    if value.stride() != weight.stride():
                        state[name] = torch.empty_like(weight, dtype=value.dtype, requires_grad=False)
                        state[name].copy_(value)

    def on_train_epoch_end(self) -> None:
        """Looks at the losses that nobody has looked at yet."""
        self.watch.look()

    def _logs_this_step(self) -> bool:
        # What Lightning does with the value of another step is to throw it away.
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return bool(self.trainer.loggers) and every > 0 and (self.global_step + 1) % every == 0

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Counts the pixels of a validation batch."""
        self._evaluate("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, list[Tensor]]:
        """Counts the pixels of a test batch.

        Returns:
            "probabilities": for each image a float32 tensor of its own height and width, in [0, 1], on the
                CPU.
        """
        return {"probabilities": self._evaluate("test", batch)}

    def on_validation_epoch_end(self) -> None:
        """Turns the counts of all ranks into scores."""
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        """Turns the counts of all ranks into scores."""
        self._finish("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the record, so that the checkpoint alone is enough to rebuild the network.

        Raises:
            NonFiniteLossError: A loss since the last look or a weight is not finite; the previous checkpoint
                stays.
        """
        if self.trainer.training:
            self.watch.look()
            # Another process's loss may have been the one, which this one only has in its weights.
            finite = [weight.detach().isfinite().all() for weight in self.network.parameters()]
            if not torch.stack(finite).all():
                raise NonFiniteLossError(
                    f"The weights are not finite at epoch {self.current_epoch + 1}, step {self.global_step}; "
                    "this checkpoint is not written. Lower optimizer.lr or set trainer.gradient_clip_val."
                )
        seconds = self.seconds_before + time.monotonic() - self._fit_began
        record = {"world_size": self.trainer.world_size, "seconds": round(seconds, 1)}
        checkpoint["skinseg"] = {**self.record, **record}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to go on within an epoch with batches that would not meet the rest of its images.

        Raises:
            SkinsegError: The batch or the number of processes is another one.
        """
        if self.trainer.state.fn != TrainerFn.FITTING or "config" not in checkpoint["skinseg"]:
            return
        record = RunRecord.of(checkpoint)
        self.seconds_before = record.seconds
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        if not progress["current"]["completed"] or progress["is_last_batch"]:
            return
        there = record.config["data"]["batch_size"], record.world_size
        here = self.trainer.datamodule.batch_size, self.trainer.world_size  # type: ignore[attr-defined]
        if there != here:
            raise SkinsegError(
                "ckpt_path: this run stopped in the middle of an epoch with data.batch_size="
                f"{there[0]} on {there[1]} processes, and would go on with {here[0]} on {here[1]}: images "
                "of that epoch would be left out or come twice. Use the same, or a checkpoint from the end "
                "of an epoch (best.ckpt)."
            )

    def _evaluate(self, subset: str, batch: dict[str, Any]) -> list[Tensor]:
        logits = self(batch["image"]).float()
        loss = self.loss(logits, batch["mask"])
        self.log(f"{subset}/loss", loss, on_epoch=True, batch_size=len(logits), sync_dist=True)
        probabilities = torch.sigmoid(logits)
        truths: list[Tensor] = batch["truth"]
        counts = torch.empty(len(truths), 4, dtype=torch.int64, device=logits.device)
        native: dict[int, Tensor] = {}
        for size in {tuple(truth.shape) for truth in truths}:
            rows = [row for row, truth in enumerate(truths) if truth.shape == size]
            resized = resize(probabilities[rows], (size[0], size[1]))[:, 0]
            if subset == "test":  # on a GPU those of large photographs would not fit side by side
                native.update(zip(rows, resized.cpu(), strict=True))
            predicted = resized >= self.net.threshold
            counts[rows] = confusion_counts(torch.stack([truths[row] for row in rows]), predicted)
        self._counts(subset).update(batch["index"], counts)
        return [native[row] for row in sorted(native)]

    def _finish(self, subset: str) -> None:
        counts = self._counts(subset)
        index, table = counts.compute()
        counts.reset()
        self.scores[subset] = SubsetScores(index, overlap_scores(*table.T))
        means = self.scores[subset].means()
        for name in OVERLAP_METRICS:
            # Every rank has gathered the counts of all, so there is nothing to reduce.
            self.log(f"{subset}/{name}", means[name], prog_bar=name == "dice", rank_zero_only=False)

    def _counts(self, subset: str) -> ImageCounts:
        counts = self.counts[subset]
        assert isinstance(counts, ImageCounts)
        return counts


def _mixed_loss(loss: nn.Module, share: float, logits: Tensor, masks: Tensor) -> Tensor:
    """Weighs the losses of both masks of blended images; no loss sees a mask of other values than 0 and 1."""
    first, second = masks.chunk(2, dim=1)
    mixed: Tensor = share * loss(logits, first) + (1 - share) * loss(logits, second)
    return mixed


def _is_compilers(error: Exception) -> bool:
    """Returns whether torch.compile raised it and not the network."""
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)


def _reason(error: BaseException) -> str:
    """Returns the first line that says something; compilers print their whole input."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:300]
