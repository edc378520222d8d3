"""Sharding of a network: here over one process, in which gathering is the same and costs nothing."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule

from skinseg.errors import SkinsegError
from skinseg.models.net import LesionNet
from skinseg.models.segmenter import LesionSegmenter
from skinseg.models.sharding import shard_network


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,), mesh_dim_names=("data_parallel",))
    dist.destroy_process_group()


# A plain one, one whose modules return views, one with parts that are never called.
@pytest.mark.parametrize(
    ("decoder", "encoder"),
    [(smp.Unet, "resnet18"), (smp.Segformer, "mit_b0"), (smp.UnetPlusPlus, "efficientnet-b0")],
)
def test_gradients_are_those_of_the_whole_network(decoder: Any, encoder: str, mesh: DeviceMesh) -> None:
    torch.manual_seed(0)
    whole = decoder(encoder, encoder_weights=None)
    sharded = copy.deepcopy(whole)
    shard_network(sharded, mesh, (64, 64))
    units = [module for module in sharded.modules() if isinstance(module, FSDPModule)]
    assert len(units) > 10
    images = torch.randn(2, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # FSDP warns of outputs that are views
        for net in (whole, sharded):
            torch.manual_seed(1)  # of dropout
            net.train()(images).square().mean().backward()
    for (name, one), other in zip(whole.named_parameters(), sharded.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad.full_tensor(), rtol=1e-4, atol=1e-5, msg=name)


class Chain(nn.Module):
    """Three convolutions, each a unit of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.head = nn.Conv2d(3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.second(self.first(images)))  # type: ignore[no-any-return]


class Inplace(Chain):
    """Writes into the view that a unit returns."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Flatten(2), nn.Unflatten(2, (16, 16)))

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        features += 1
        return self.head(self.second(features))  # type: ignore[no-any-return]


def test_writing_into_a_view_loses_no_gradient(mesh: DeviceMesh) -> None:
    whole = Inplace()
    sharded = copy.deepcopy(whole)
    shard_network(sharded, mesh, (16, 16))
    for net in (whole, sharded):
        torch.manual_seed(0)
        net(torch.randn(2, 3, 16, 16)).square().mean().backward()
    for one, other in zip(whole.parameters(), sharded.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad.full_tensor())


class Tied(Chain):
    def __init__(self) -> None:
        super().__init__()
        self.second.weight = self.first.weight


class Scaled(Chain):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.scale


class Peeking(Chain):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * self.second.weight.mean())


@pytest.mark.parametrize(
    ("network", "reason"),
    [(Tied, "shared between modules"), (Scaled, "scalar"), (Peeking, "DTensor")],
)
def test_weights_that_cannot_be_sharded(network: type[nn.Module], reason: str, mesh: DeviceMesh) -> None:
    with pytest.raises(
        SkinsegError, match=rf"weights of {network.__name__} cannot .*{reason}.*take trainer=ddp"
    ):
        shard_network(network(), mesh, (16, 16))


def test_loss_with_weights_of_its_own(mesh: DeviceMesh) -> None:
    segmenter = LesionSegmenter(
        LesionNet(Chain()),
        nn.Linear(1, 1),
        optimizer=torch.optim.SGD,
        scheduler=lambda *_: {},
    )
    segmenter._device_mesh = mesh
    with pytest.raises(SkinsegError, match="loss: Linear has weights of its own"):
        segmenter.configure_model()


def test_fused_only_where_sharded_weights_can(mesh: DeviceMesh) -> None:
    for kind, fused in ((torch.optim.AdamW, True), (torch.optim.SGD, False)):
        segmenter = LesionSegmenter(
            LesionNet(Chain()), nn.Identity(), optimizer=partial(kind, lr=0.1, fused=True),
            scheduler=lambda *_: {},
        )  # fmt: skip
        assert segmenter._make_optimizer().defaults["fused"]
        segmenter._device_mesh = mesh
        shard_network(segmenter.network, mesh, (16, 16))
        assert segmenter._make_optimizer().defaults["fused"] == fused
