"""Losses at several depths: which features they see, and that inference knows nothing of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from conftest import Train
from torch import nn

from skinseg.build.nets import load_net
from skinseg.errors import SkinsegError
from skinseg.models.deep_supervision import DeepSupervision
from skinseg.models.light_unets import EGEUNet, MALUNet
from skinseg.models.losses import BCE
from skinseg.models.unets import PlainUNet, ResUNet

FAST = ("callbacks=minimal", "logger=none", "test=false")


def smp_network(decoder: str) -> nn.Module:
    network = getattr(smp, decoder)(encoder_name="resnet18", encoder_weights=None)
    assert isinstance(network, nn.Module)
    return network


def own_network(name: str) -> nn.Module:
    if name in ("PlainUNet", "ResUNet"):
        return {"PlainUNet": PlainUNet, "ResUNet": ResUNet}[name]([8, 16, 16, 16, 32])
    return EGEUNet() if name == "EGEUNet" else smp_network(name)


SUPPORTED = {
    "Unet": 4,
    "UnetPlusPlus": 4,
    "MAnet": 4,
    "Linknet": 4,
    "PlainUNet": 3,
    "ResUNet": 3,
    "EGEUNet": 5,
}


@pytest.mark.parametrize(("name", "depths"), SUPPORTED.items())
def test_every_depth_is_supervised(name: str, depths: int) -> None:
    """Each loss reaches the weights before it, finer depths see finer features, and no head is idle."""
    torch.manual_seed(0)
    network = own_network(name).train()
    buffers = {key: value.clone() for key, value in network.named_buffers()}
    supervision = DeepSupervision(network, [0.5**depth for depth in range(depths)], image_size=(64, 96))
    assert network.training
    assert all(torch.equal(value, buffers[key]) for key, value in network.named_buffers())
    images, masks = torch.randn(2, 3, 64, 96), torch.zeros(2, 1, 64, 96, dtype=torch.uint8)
    masks[..., 20:40, 20:50] = 1
    network(images)
    sizes = [features.shape[2] for features in supervision._features.values()]
    assert sorted(sizes) == sizes  # deep ones come first in a forward pass
    finest_first = [supervision._features[depth].shape[2] for depth in range(depths)]
    assert finest_first == [32 // 2**depth for depth in range(depths)]
    loss = supervision(BCE(), masks)
    loss.backward()
    assert torch.isfinite(loss)
    for parameter in supervision.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    reached = [parameter for parameter in network.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(parameter.grad).all() for parameter in reached)  # type: ignore[arg-type]
    assert 0 < len(reached) < len(list(network.parameters()))  # the output's own layers are behind
    assert supervision._features == {}


def test_the_sum_is_that_of_the_losses() -> None:
    torch.manual_seed(0)
    network = PlainUNet([8, 16, 32])
    kept: dict[str, torch.Tensor] = {}
    network.decoder.blocks[0].register_forward_hook(lambda *call: kept.update(features=call[2]))
    supervision = DeepSupervision(network, [0.3], image_size=(32, 32))
    masks = (torch.rand(2, 1, 32, 32) > 0.5).float()
    network(torch.randn(2, 3, 32, 32))
    head = supervision.heads[0]
    assert isinstance(head, nn.Conv2d)
    logits = (
        torch.einsum("bchw,oc->bohw", kept["features"], head.weight[..., 0, 0]) + head.bias[:, None, None]
    )  # type: ignore[index]
    logits = F.interpolate(logits, scale_factor=2, mode="bilinear")
    expected = 0.3 * F.binary_cross_entropy_with_logits(logits, masks)
    assert torch.allclose(supervision(BCE(), masks), expected)


def test_guesses_of_egeunet_are_its_own() -> None:
    """Supervised without weights of the supervision's own, and all of the network's are reached."""
    network = EGEUNet()
    supervision = DeepSupervision(network, [0.5, 0.4, 0.3, 0.2, 0.1], image_size=(64, 64))
    assert list(supervision.parameters()) == []
    masks = torch.ones(1, 1, 64, 64)
    loss = BCE()(network(torch.randn(1, 3, 64, 64)), masks)
    (loss + supervision(BCE(), masks)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    "decoder", ["FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "PAN", "UPerNet", "Segformer", "MALUNet"]
)
def test_other_decoders(decoder: str) -> None:
    network = MALUNet() if decoder == "MALUNet" else smp_network(decoder)
    expected = f"the decoder of {decoder} has no features of several depths.*model=unet, unetplusplus"
    with pytest.raises(SkinsegError, match=expected):
        DeepSupervision(network, [0.5], image_size=(64, 64))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5] * 5, "Unet has 4 depths below its output"),
        ([0.5, 0.0], "expected weights > 0, or null"),
        ([-0.5], "expected weights > 0"),
        ([float("nan")], "expected weights > 0"),
        ([], "expected weights > 0"),
    ],
)
def test_weights(weights: list[float], message: str) -> None:
    with pytest.raises(SkinsegError, match=rf"deep_supervision=\[.*{message}"):
        DeepSupervision(smp_network("Unet"), weights, image_size=(64, 64))


def test_nothing_is_kept_outside_of_training() -> None:
    network = smp_network("Unet")
    supervision = DeepSupervision(network, [0.5], image_size=(64, 64)).eval()
    network.eval()(torch.zeros(1, 3, 64, 64))
    assert supervision._features == {}


def state(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint: dict[str, Any] = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    return dict(checkpoint["state_dict"])


@pytest.mark.slow
def test_a_run(train: Train) -> None:
    """The heads are trained and resumed, and the network alone is rebuilt for evaluation."""
    supervised = ("deep_supervision=[0.5,0.25]", "callbacks=minimal", "logger=[csv]")
    folder = train(*supervised, "trainer.max_epochs=2", run_dir="supervised")
    assert (folder / "scores.csv").is_file()
    trained = state(folder)
    heads = [name for name in trained if name.startswith("deep_supervision.")]
    assert heads == [
        f"deep_supervision.heads.{depth}.{kind}" for depth in (0, 1) for kind in ("weight", "bias")
    ]
    net, _ = load_net(folder / "checkpoints/last.ckpt")
    own = net.network.state_dict()
    assert {f"network.{name}" for name in own} == {name for name in trained if name.startswith("network.")}
    assert all(torch.equal(value, trained[f"network.{name}"]) for name, value in own.items())

    resume = f"ckpt_path={folder / 'checkpoints/last.ckpt'}"
    resumed = train(*supervised, "trainer.max_epochs=3", resume, "test=false", run_dir="resumed")
    assert all(not torch.equal(state(resumed)[name], trained[name]) for name in heads)
    for other in ("null", "[0.5]"):
        with pytest.raises(SkinsegError, match=r"deep_supervision=\[0\.5, 0\.25\], this run has .*init_from"):
            train(*FAST, f"deep_supervision={other}", resume, run_dir="refused")
    start = f"init_from={folder / 'checkpoints/last.ckpt'}"
    train(*FAST, "deep_supervision=null", start, run_dir="started")


@pytest.mark.slow
def test_the_network_learns_from_it(train: Train) -> None:
    """A step leads elsewhere than without."""
    steps = (*FAST, "trainer.max_steps=1")
    plain = state(train(*steps, run_dir="plain"))
    supervised = state(train(*steps, "deep_supervision=[1,1,1,1]", run_dir="supervised"))
    name = "network.decoder.blocks.0.conv1.0.weight"
    assert not torch.equal(plain[name], supervised[name])


def test_refused_through_the_configuration(train: Train) -> None:
    with pytest.raises(SkinsegError, match=r"deep_supervision='much'.*list"):
        train(*FAST, "deep_supervision=much")
    with pytest.raises(SkinsegError, match="the decoder of FPN has no features of several depths"):
        train(*FAST, "model=fpn", "model.encoder_name=resnet18", "model.encoder_weights=null",
              "deep_supervision=[0.5]")  # fmt: skip


@pytest.mark.slow
def test_compiled(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    run = (*FAST, "trainer.max_steps=2", "optimizer=sgd", "deep_supervision=[0.5,0.5]")
    plain, compiled = (
        state(train(*run, f"compile={mode}", run_dir=str(mode))) for mode in ("null", "default")
    )
    assert "going on uncompiled" not in caplog.text
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "nothing was compiled"
    for key, value in plain.items():
        assert torch.allclose(value.float(), compiled[key].float(), atol=2e-3, rtol=1e-2), key


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [["deep_supervision=[0.5,0.4]"], ["model=egeunet", "deep_supervision=[0.5,0.4,0.3,0.2,0.1]"]]
)
def test_learns_a_handful_of_images_by_heart(options: list[str], train: Train) -> None:
    folder = train(
        "+debug=overfit", "data.overfit=4", "data.batch_size=4", "trainer.max_epochs=100",
        "optimizer.lr=0.01", "data.image_size=[64,64]", "callbacks=minimal", "logger=none", *options,
    )  # fmt: skip
    assert json.loads((folder / "summary.json").read_text())["scores"]["test"]["dice"] > 0.95
