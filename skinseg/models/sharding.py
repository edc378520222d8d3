"""Weights, gradients and the optimizer's state in shards, one for each process (PyTorch's FSDP2)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from skinseg.errors import SkinsegError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

# Shares of the network's weights. A process holds at most the whole of two units at a time and of what is in
# none of them; each is gathered by a message of its own, which a few hundred weights are not worth.
_LARGEST_UNIT = 1 / 8
_SMALLEST_UNIT = 1 / 256


class FullySharded(ModelParallelStrategy):
    """Fully sharded data parallelism of all processes, with checkpoints like those of one process.

    Lightning's strategy leaves the sharding to `LightningModule.configure_model`; see `shard_network`.
    Buffers are not sharded: as in DDP every process has those of the first one, whose batches alone the
    statistics of batch norm are of.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Starts the processes' group, all of them along one axis."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> Any:
        """Steps, then gives all processes the buffers of the first."""
        result = super().optimizer_step(*args, **kwargs)
        module = self.lightning_module
        assert module is not None
        # The other buffers are counters, which are the same everywhere.
        buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
        sizes = [buffer.numel() for buffer in buffers]
        together = torch.cat([buffer.flatten() for buffer in buffers])
        dist.broadcast(together, src=0)
        for buffer, part in zip(buffers, torch.split(together, sizes), strict=True):
            buffer.copy_(part.view_as(buffer))
        return result

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Returns an optimizer's state as in one process; whole on the first process alone."""

        def whole(value: DTensor) -> Tensor | None:
            tensor = value.full_tensor()
            return tensor.cpu() if self.is_global_zero else None

        state: dict[str, Any] = apply_to_collection(optimizer.state_dict(), DTensor, whole)
        return state

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint of any strategy; each process takes its shards of it.

        Neither Lightning nor PyTorch can load the optimizer's state where it is empty, as of SGD without
        momentum, or lacks a weight, as one that the network does not use.
        """
        checkpoint: dict[str, Any] = self.checkpoint_io.load_checkpoint(
            checkpoint_path, weights_only=weights_only
        )
        module = self.lightning_module
        assert module is not None
        set_model_state_dict(module, checkpoint["state_dict"], options=StateDictOptions(full_state_dict=True))
        if module.trainer.state.fn == TrainerFn.FITTING:
            for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
                _load_optimizer(optimizer, state)
        return checkpoint


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]

    def sharded(value: Any, weight: Tensor) -> Any:
        if isinstance(value, Tensor) and isinstance(weight, DTensor) and value.shape == weight.shape:
            whole = value.to(weight.device).contiguous()
            return distribute_tensor(whole, weight.device_mesh, weight.placements)
        return value

    # How to step is no state: not every fused optimizer can with sharded weights.
    own = {key: optimizer.defaults[key] for key in ("fused", "foreach") if key in optimizer.defaults}
    optimizer.load_state_dict(
        {
            "state": {
                number: {name: sharded(value, weights[number]) for name, value in values.items()}
                for number, values in state["state"].items()
            },
            "param_groups": [{**group, **own} for group in state["param_groups"]],
        }
    )


def shard_network(network: nn.Module, mesh: DeviceMesh, image_size: tuple[int, int]) -> None:
    """Shards a network's weights over a mesh of processes, in place, with the first process's values.

    What is gathered at a time is a unit: the outermost modules that hold at most an eighth of the weights, or
    cannot be divided, and at least a 256th. In most networks these are the blocks of encoder and decoder.
    The rest stays gathered throughout a step. Only a module that is called, and once, can be a unit, since
    the call is what gathers it; which ones are is seen by passing an image through the network.

    Args:
        network: Maps (B, 3, H, W) to logits; its weights are contiguous. One that is sharded stays as it is.
        mesh: Processes along one axis.
        image_size: Height and width, in pixels.

    Raises:
        SkinsegError: The weights cannot be sharded.
    """
    if isinstance(network, FSDPModule):
        return
    state = network.state_dict()
    try:
        if len(list(network.parameters())) != len(list(network.named_parameters(remove_duplicate=False))):
            raise ValueError("some are shared between modules")
        for unit in [*_units(network, _called_once(network, image_size)), network]:
            # An in-place operation on a view would undo what FSDP hangs on it for the backward pass.
            unit.register_forward_hook(_without_views)
            fully_shard(unit, mesh=mesh)
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(network, state, options=options)
        _pass_through(network, image_size)  # fails where a module looks into another one
    except (ValueError, RuntimeError, AssertionError) as error:
        raise SkinsegError(
            f"model: the weights of {type(network).__name__.removeprefix('FSDP')} cannot be sharded "
            f"({(str(error) or type(error).__name__).splitlines()[0]}); take trainer=ddp."
        ) from error


def _without_views(module: nn.Module, inputs: Any, output: Any) -> Any:
    return apply_to_collection(output, Tensor, lambda t: t.clone() if t._is_view() else t)


def _pass_through(network: nn.Module, image_size: tuple[int, int]) -> None:
    training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, *image_size, device=next(network.parameters()).device))
    network.train(training)


def _called_once(network: nn.Module, image_size: tuple[int, int]) -> set[nn.Module]:
    calls: Counter[nn.Module] = Counter()
    hooks = [m.register_forward_hook(lambda module, *_: calls.update([module])) for m in network.modules()]
    _pass_through(network, image_size)
    for hook in hooks:
        hook.remove()
    return {module for module, count in calls.items() if count == 1}


def _units(network: nn.Module, called: set[nn.Module]) -> list[nn.Module]:
    whole = _size(network)
    units: list[nn.Module] = []

    def look(module: nn.Module) -> None:
        for child in module.children():
            if _size(child) < _SMALLEST_UNIT * whole:
                continue
            indivisible = next(child.children(), None) is None
            if child in called and (indivisible or _size(child) <= _LARGEST_UNIT * whole):
                units.append(child)
            else:
                look(child)

    look(network)
    return units


def _size(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
