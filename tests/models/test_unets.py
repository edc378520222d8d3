"""Networks without a pretrained encoder: their published size, what they refuse, and that they train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import Train
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from skinseg.build.nets import load_net
from skinseg.build.parts import datamodule
from skinseg.errors import SkinsegError
from skinseg.models.counts import confusion_counts
from skinseg.models.encoder_weights import IMAGENET_MEAN
from skinseg.models.light_unets import EGEUNet, MALUNet
from skinseg.models.networks import build_network, size_step
from skinseg.models.unets import PlainUNet, ResUNet
from skinseg.scoring.overlap import overlap_scores

Make = Callable[..., nn.Module]

NETWORKS: dict[str, tuple[Make, dict[str, Any], int]] = {
    "plain_unet": (PlainUNet, {"widths": [8, 16, 32]}, 4),
    "resunet": (ResUNet, {"widths": [8, 16, 32]}, 4),
    "egeunet": (EGEUNet, {}, 32),
    "malunet": (MALUNet, {}, 32),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def parameters(network: nn.Module, without: tuple[type[nn.Module], ...] = ()) -> int:
    left_out = sum(p.numel() for m in network.modules() if isinstance(m, without) for p in m.parameters())
    return sum(parameter.numel() for parameter in network.parameters()) - left_out


def operations(network: nn.Module, size: int = 256) -> float:
    """10^9 multiplications with their additions, as papers count."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 3, size, size))
    return counter.get_total_flops() / 2e9


@every_network
def test_progressive_resizing_takes_its_own_step(name: str) -> None:
    constructor, options, step = NETWORKS[name]
    assert size_step(constructor(**options)) == step


def test_published_size_of_egeunet() -> None:
    """arXiv:2307.08473: 0.053 million parameters, 0.072 GFLOPs."""
    assert round(parameters(EGEUNet()) / 1e6, 3) == 0.053
    assert round(operations(EGEUNet()), 3) == 0.072


def test_published_size_of_malunet() -> None:
    """arXiv:2211.01784: 0.083 GFLOPs, and 0.175 or 0.177 million parameters, as one counts."""
    assert parameters(MALUNet()) // 1000 == 177
    assert round(parameters(MALUNet(), without=(nn.GroupNorm,)) / 1e6, 3) == 0.175
    assert round(operations(MALUNet()), 3) == 0.083


def test_size_of_plain_networks() -> None:
    """By the layers: two convolutions and norms a level, transposed convolutions, the head."""
    down = [(3, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    up = [(2 * width, width) for width in (512, 256, 128, 64)]
    pairs = sum(9 * inputs * outputs + 9 * outputs**2 + 4 * outputs for inputs, outputs in down + up)
    transposed = sum(4 * inputs * outputs + outputs for inputs, outputs in up)
    assert parameters(PlainUNet()) == pairs + transposed + 65
    shortcuts = sum(inputs * outputs + 2 * outputs for inputs, outputs in down + up)
    assert parameters(ResUNet()) == parameters(PlainUNet()) + shortcuts


def build(name: str, size: tuple[int, int], batch: int = 2, **options: Any) -> nn.Module:
    constructor, small, _ = NETWORKS[name]
    return build_network(constructor, {**small, **options}, image_size=size, batch_size=batch)


@every_network
@pytest.mark.parametrize("batch", [1, 2])
def test_a_step(name: str, batch: int) -> None:
    """Every weight moves, in the memory layout of training too, and the shape is that of the images."""
    torch.manual_seed(0)
    network = build(name, (64, 96), batch).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    logits = network.train()(torch.randn(batch, 3, 64, 96))
    assert logits.shape == (batch, 1, 64, 96)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e5)
    F.binary_cross_entropy_with_logits(logits, (torch.rand_like(logits) > 0.5).float()).backward()
    for weight_name, weight in network.named_parameters():
        assert weight.grad is not None, weight_name
        assert torch.isfinite(weight.grad).all(), weight_name
    optimizer.step()
    still = [name for name, weight in network.named_parameters() if torch.equal(weight, before[name])]
    assert still == []


@pytest.mark.parametrize("how", ["mixed", "true"])
@every_network
def test_half_precision(name: str, how: str) -> None:
    """Of images so large that the plain dilated convolutions would end the process."""
    network = build(name, (96, 96)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(2, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    network = network.bfloat16() if how == "true" else network
    images = images.bfloat16() if how == "true" else images
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "mixed"):
        logits = network(images)
    logits.float().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@every_network
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    network = build(name, (64, 64)).eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together, alone = network(images), torch.cat([network(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-5)


@every_network
def test_sizes(name: str) -> None:
    step = NETWORKS[name][2]
    build(name, (step * 2, step * 3))
    with pytest.raises(
        SkinsegError, match=rf"multiples of {step} pixels; the nearest is 'data\.image_size=\[96,64\]'"
    ):
        build(name, (97, 64))


@every_network
def test_smallest_images(name: str) -> None:
    """A pixel at the deepest level: batch norm takes a second image, group norm does not."""
    step = NETWORKS[name][2]
    build(name, (step, step), batch=2)
    if name in ("plain_unet", "resunet"):
        with pytest.raises(SkinsegError, match=r"cannot train on 1 image of 4x4.*more than 1 value"):
            build(name, (step, step), batch=1)
    else:
        build(name, (step, step), batch=1)


@pytest.mark.parametrize(
    ("name", "widths", "message"),
    [
        ("plain_unet", [8], "two levels or more"),
        ("resunet", [8, 0], "two levels or more"),
        ("egeunet", [8, 16], "six stages, multiples of 4"),
        ("malunet", [8, 16, 24, 32, 48, 63], "six stages, multiples of 4"),
    ],
)
def test_widths(name: str, widths: list[int], message: str) -> None:
    with pytest.raises(SkinsegError, match=f"model: .* refused its arguments: .*{message}"):
        build(name, (64, 64), widths=widths)


@pytest.mark.parametrize("name", ["egeunet", "malunet"])
def test_other_widths(name: str) -> None:
    network = build(name, (64, 64), widths=[4, 8, 8, 16, 12, 20])
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_context_reaches_far() -> None:
    """What a corner shows has a say at the opposite one."""
    torch.manual_seed(0)
    for network in (EGEUNet(), MALUNet()):
        images = torch.randn(1, 3, 128, 128, requires_grad=True)
        network.eval()(images)[0, 0, 0, 0].backward()
        assert images.grad is not None
        assert images.grad[..., -32:, -32:].abs().max() > 0


@every_network
def test_trained_is_reloaded_and_scores_the_same(name: str, train: Train) -> None:
    _, small, _ = NETWORKS[name]
    options = [f"model.{key}={value}" for key, value in small.items()]
    folder = train(f"model={name}", *options, "data.image_size=[64,64]", "callbacks=minimal", "logger=none")
    net, record = load_net(folder / "checkpoints/best.ckpt")
    assert torch.allclose(net.mean.flatten() / 255, torch.tensor(IMAGENET_MEAN))
    data = datamodule(dict(record.config)).dataset("test")
    expected = pd.read_csv(folder / "scores.csv").set_index("image_id")
    for sample in map(data.__getitem__, range(len(expected))):
        with torch.no_grad():
            probability = net.probabilities(sample["image"][None], (32, 40))[0]
        counts = confusion_counts(sample["truth"][None], probability >= 0.5)
        accuracy = overlap_scores(*counts.numpy().T)["accuracy"][0]
        assert accuracy == pytest.approx(expected.loc[sample["image_id"], "accuracy"], abs=0.02)
