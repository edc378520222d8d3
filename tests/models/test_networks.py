"""Pairs, sizes and weights of networks: what is refused, and that the rest works."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from conftest import REPOSITORY
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from skinseg.errors import SkinsegError
from skinseg.models.encoder_weights import IMAGENET_MEAN, IMAGENET_STD, load_encoder_weights, normalization
from skinseg.models.networks import build_network
from skinseg.models.pairs import check_network

DECODERS = (
    "Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet",
    "DeepLabV3", "DeepLabV3Plus", "PAN", "UPerNet", "Segformer", "DPT",
)  # fmt: skip


def network(
    decoder: str = "Unet", encoder: str = "resnet18", weights: str | None = None, **options: Any
) -> nn.Module:
    size = options.pop("size", (64, 64))
    return build_network(
        getattr(smp, decoder),
        {"encoder_name": encoder, "encoder_weights": weights, **options},
        image_size=size,
        batch_size=options.pop("batch_size", 2),
    )


def check(decoder: str, encoder: str = "resnet18", **where: Any) -> None:
    options = {"encoder_name": encoder, **where.pop("options", {})}
    check_network(decoder, options, **{"image_size": (256, 256), "batch_size": 8, **where})


@pytest.mark.parametrize("decoder", [d for d in DECODERS if d != "DPT"])
def test_every_decoder_gives_logits_of_the_image_size(decoder: str) -> None:
    size = (128, 160) if decoder == "PAN" else (64, 96)
    built = network(decoder, size=size)
    with torch.no_grad():
        assert built.eval()(torch.zeros(1, 3, *size)).shape == (1, 1, *size)


def test_building_leaves_weights_statistics_and_random_state_alone() -> None:
    torch.manual_seed(0)
    built = network()
    drawn = torch.rand(1)
    torch.manual_seed(0)
    plain = smp.Unet("resnet18", encoder_weights=None)
    assert torch.equal(drawn, torch.rand(1))
    assert built.training == plain.training
    state = plain.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in built.state_dict().items())


@pytest.mark.parametrize(
    ("decoder", "encoder", "where", "message"),
    [
        ("UnetPlusPlus", "mit_b0", {}, "UnetPlusPlus does not work with the encoder mit_b0.*model=segformer"),
        ("Linknet", "mit_b0", {}, "Linknet does not work"),
        ("PAN", "densenet121", {}, "cannot be dilated; take model=unet"),
        ("DeepLabV3", "tu-swin_tiny_patch4_window7_224", {}, "cannot be dilated"),
        ("DeepLabV3Plus", "vgg11_bn", {}, "cannot be dilated"),
        ("DPT", "resnet18", {}, "DPT takes Vision Transformers"),
        ("DPT", "tu-vit_small_patch16_224", {}, r"its own size, 'data\.image_size=\[224,224\]"),
        ("FPN", "resnet18", {"image_size": (250, 256)}, r"multiples of 32 .*data\.image_size=\[256,256\]"),
        ("PSPNet", "resnet18", {"image_size": (250, 256)}, "multiples of 8"),
        ("DeepLabV3Plus", "resnet18", {"image_size": (248, 256)}, "multiples of 16"),
        ("DeepLabV3Plus", "resnet18", {"image_size": (248, 250), "options": {"encoder_output_stride": 8}},
         "multiples of 8"),
        ("PAN", "resnet18", {"image_size": (96, 128)}, "needs 128 pixels a side"),
        ("UPerNet", "resnet18", {"batch_size": 1}, r"data\.batch_size=1: UPerNet"),
        ("Unet", "tu-resnest14d", {"batch_size": 1}, r"data\.batch_size=1: .*resnest14d"),
        ("Unet", "resnet81", {}, "unknown; did you mean resnet18"),
        ("Unet", "tu-convnext_tinny", {}, "did you mean tu-convnext_tiny"),
    ],
)  # fmt: skip
def test_known_bad(decoder: str, encoder: str, where: dict[str, Any], message: str) -> None:
    with pytest.raises(SkinsegError, match=message):
        check(decoder, encoder, **where)


def test_mobileone_on_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    check("Unet", "mobileone_s0")
    check("Unet", "mobileone_s0", channels_last=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SkinsegError, match="set channels_last=false"):
        check("Unet", "mobileone_s0", channels_last=True)


def test_known_good() -> None:
    check("Unet", "resnet18", image_size=(75, 101), batch_size=1)
    check("PAN", "resnet18", image_size=(128, 160))
    check("Segformer", "mit_b2")
    check("DPT", "tu-vit_small_patch16_224.augreg_in21k", image_size=(224, 224))


def test_what_no_rule_knows_of_fails_when_built() -> None:
    with pytest.raises(
        SkinsegError, match=r"Unet cannot train on 2 images of 64x64 pixels: .*224.*data\.image_size"
    ):
        network(encoder="tu-swin_tiny_patch4_window7_224")
    with pytest.raises(SkinsegError, match=r"returns \(2, 3, 64, 64\).*model\.classes=1"):
        network(classes=3)
    with pytest.raises(SkinsegError, match="refused its arguments"):
        network(decoder_channels=[8, 8])


def test_a_network_of_the_users_own() -> None:
    class Own(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 1, 1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layers(images)
            return out

    assert isinstance(build_network(Own, {"width": 4}, image_size=(30, 31), batch_size=1), Own)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-test_resnet"])
def test_weights_without_a_network_are_one_attempt(
    encoder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The Hub is a port that nobody listens to; its client would wait for it five times."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    with pytest.raises(SkinsegError, match=rf"{encoder} could not be fetched.*model\.encoder_weights=null"):
        network(encoder=encoder, weights="imagenet")
    assert waits == []
    assert "Retrying" not in caplog.text
    assert not constants.HF_HUB_OFFLINE


class TestLocalWeights:
    @pytest.fixture
    def donor(self) -> nn.Module:
        torch.manual_seed(1)
        return network()

    @staticmethod
    def as_classifier(donor: nn.Module) -> dict[str, torch.Tensor]:
        """The tensors as torchvision and timm name them, with a classifier."""
        state = {name: tensor.clone() for name, tensor in donor.encoder.state_dict().items()}  # type: ignore[union-attr, operator]
        return {**state, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}

    @pytest.mark.parametrize("form", ["safetensors", "pth", "nested", "prefixed"])
    def test_round_trip(self, donor: nn.Module, form: str, tmp_path: Path) -> None:
        state: dict[str, Any] = self.as_classifier(donor)
        path = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pth")
        if form == "safetensors":
            save_file({name: tensor for name, tensor in state.items() if "num_batches" not in name}, path)
        elif form == "nested":
            torch.save({"state_dict": state, "epoch": 3}, path)
        elif form == "prefixed":
            torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
        else:
            torch.save(state, path)
        torch.manual_seed(2)
        other = network()
        report = load_encoder_weights(other, path)
        assert report.left_over == ("fc.bias", "fc.weight")
        weights = [name for name, _ in donor.named_parameters() if name.startswith("encoder.")]
        ours, theirs = other.state_dict(), donor.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in weights)
        assert report.matched >= len(weights)

    def test_through_the_configuration(self, donor: nn.Module, tmp_path: Path) -> None:
        path = tmp_path / "a.pth"
        torch.save(self.as_classifier(donor), path)
        built = network(weights=str(path))
        name = "encoder.layer1.0.conv1.weight"
        assert torch.equal(built.state_dict()[name], donor.state_dict()[name])

    def test_a_part_of_the_tensors(self, donor: nn.Module, tmp_path: Path) -> None:
        path = tmp_path / "a.pth"
        state = self.as_classifier(donor)
        del state["layer4.1.conv2.weight"]
        torch.save(state, path)
        with pytest.raises(SkinsegError, match=r"99 of the encoder's 100 tensors .*layer4\.1\.conv2\.weight"):
            load_encoder_weights(network(), path)

    def test_another_encoder(self, donor: nn.Module, tmp_path: Path) -> None:
        path = tmp_path / "a.pth"
        torch.save(self.as_classifier(donor), path)
        with pytest.raises(SkinsegError, match="probably the file of another encoder"):
            load_encoder_weights(network(encoder="resnet34"), path)
        # All of ResNet-18 is in ResNet-34, so only what is left over tells.
        torch.save(self.as_classifier(network(encoder="resnet34")), path)
        with pytest.raises(SkinsegError, match="only in the file"):
            load_encoder_weights(network(), path)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.pth", b"", "cannot be read as weights"),
            ("a.safetensors", b"not a file of tensors", "cannot be read as weights"),
            ("a.pth", pickle.dumps({"a": Path()}), "cannot be read as weights"),
            ("absent.pth", None, "no such file"),
        ],
        ids=["empty", "text", "objects", "absent"],
    )
    def test_bad_file(self, name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SkinsegError, match=message):
            load_encoder_weights(network(), path)

    def test_truncated_file_and_no_tensors(self, donor: nn.Module, tmp_path: Path) -> None:
        path = tmp_path / "a.pth"
        torch.save(self.as_classifier(donor), path)
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(SkinsegError, match=r"\(1000 bytes\) cannot be read"):
            load_encoder_weights(network(), path)
        torch.save({"epoch": 1}, path)
        with pytest.raises(SkinsegError, match="holds no named tensors"):
            load_encoder_weights(network(), path)

    @pytest.mark.parametrize(
        ("decoder", "encoder", "classifier"),
        [
            ("Unet", "tu-convnext_atto", "convnext_atto"),
            ("PSPNet", "tu-convnext_atto", "convnext_atto"),
            ("PSPNet", "tu-resnet18", "resnet18"),
            ("Unet", "densenet121", "torchvision.densenet121"),
            ("Unet", "tu-pvt_v2_b0", "pvt_v2_b0"),
            ("Unet", "tu-edgenext_xx_small", "edgenext_xx_small"),
            ("FPN", "tu-swin_tiny_patch4_window7_224", "swin_tiny_patch4_window7_224"),
            # What their encoders leave out is neither a deeper stage nor has a head's name.
            ("Unet", "tu-ghostnet_050", "ghostnet_050"),
            ("Unet", "tu-rexnet_100", "rexnet_100"),
            ("PSPNet", "tu-legacy_xception", "legacy_xception"),  # timm wraps it as `body`
            ("PSPNet", "tu-tresnet_m", "tresnet_m"),  # has a part `body` of its own
            ("Unet", "tu-selecsls42b", "selecsls42b"),  # its deepest features come from what it calls `head`
        ],
    )
    def test_classifiers_of_timm_and_torchvision(
        self, decoder: str, encoder: str, classifier: str, tmp_path: Path
    ) -> None:
        if classifier.startswith("torchvision."):
            model = getattr(torchvision.models, classifier.removeprefix("torchvision."))(weights=None)
        else:
            model = timm.create_model(classifier, pretrained=False)
        path = tmp_path / "a.pth"
        torch.save(model.state_dict(), path)
        size = (224, 224) if "swin" in encoder else (64, 64)
        built = network(decoder, encoder, weights=str(path), size=size)
        assert isinstance(built.encoder, nn.Module)
        theirs = {name.replace(".", "_"): tensor for name, tensor in model.state_dict().items()}
        for name, tensor in built.encoder.state_dict().items():
            bare = name.removeprefix("model.").removeprefix("body.").replace(".", "_")
            assert torch.equal(tensor, theirs[bare]), name

    @pytest.mark.parametrize(("encoder", "head"), [("efficientnet-b0", "_fc"), ("mobileone_s0", "linear")])
    def test_heads_of_the_original_authors(self, encoder: str, head: str, tmp_path: Path) -> None:
        path = tmp_path / "a.pth"
        built = smp.Unet(encoder, encoder_weights=None)
        state = built.encoder.state_dict()
        torch.save({**state, f"{head}.weight": torch.zeros(10, 4), f"{head}.bias": torch.zeros(10)}, path)
        assert load_encoder_weights(built, path).left_over == (f"{head}.bias", f"{head}.weight")

    def test_densenet_as_torchvision_publishes_it(self, tmp_path: Path) -> None:
        """The files to download say `norm.1` where the model says `norm1`."""
        path = tmp_path / "a.pth"
        state = torchvision.models.densenet121(weights=None).state_dict()
        torch.save(
            {re.sub(r"(denselayer\d+\.[a-z]+)(\d)", r"\1.\2", name): state[name] for name in state}, path
        )
        built = smp.Unet("densenet121", encoder_weights=None)
        load_encoder_weights(built, path)
        for name, tensor in built.encoder.state_dict().items():
            assert torch.equal(tensor, state[name]), name

    def test_a_deeper_file_of_another_architecture(self, tmp_path: Path) -> None:
        """ResNet-34 begins like ResNet-18, so a shallow encoder would find all of its tensors there."""
        path = tmp_path / "a.pth"
        torch.save(timm.create_model("resnet34", pretrained=False).state_dict(), path)
        with pytest.raises(SkinsegError, match=r"belong to no classification head"):
            network("PSPNet", "tu-resnet18", weights=str(path))

    def test_a_shallower_file_of_another_architecture(self, tmp_path: Path) -> None:
        """All of ResNet-18 is in ResNet-34, and a shallow encoder of either has the same tensors."""
        path = tmp_path / "a.pth"
        torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), path)
        with pytest.raises(SkinsegError, match=r"belong to no classification head"):
            network("PSPNet", "tu-resnet34", weights=str(path), encoder_depth=1)

    @pytest.mark.realdata
    @pytest.mark.parametrize("encoder", ["tu-tf_efficientnet_lite0", "timm-tf_efficientnet_lite0"])
    @pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated")
    def test_real_file(self, encoder: str) -> None:
        folder = Path(os.environ.get("SKINSEG_TEST_WEIGHTS", REPOSITORY.parent / "shared" / "weights"))
        path = folder / "tf_efficientnet_lite0.imagenet.safetensors"
        if not path.is_file():
            pytest.skip(f"{path} is not there; set SKINSEG_TEST_WEIGHTS")
        built = network(encoder=encoder)
        report = load_encoder_weights(built, path)
        assert report.matched == sum(
            "num_batches" not in name
            for name in built.encoder.state_dict()  # type: ignore[union-attr, operator]
        )
        # smp's own class of this encoder keeps the last convolution, timm's features do not.
        head = {name.split(".")[0] for name in report.left_over}
        assert {"classifier"} <= head <= {"classifier", "conv_head", "bn2"}


def test_normalization() -> None:
    assert normalization(None, None) == (IMAGENET_MEAN, IMAGENET_STD)
    assert normalization("resnet18", None) == (IMAGENET_MEAN, IMAGENET_STD)
    assert normalization("resnet18", "/some/file.pth") == (IMAGENET_MEAN, IMAGENET_STD)
    assert normalization("tu-tf_efficientnet_lite0", "/some/file.pth")[0] == (0.5, 0.5, 0.5)
    assert normalization("timm-tf_efficientnet_lite0", "/some/file.pth")[0] == (0.5, 0.5, 0.5)
    assert normalization("timm-efficientnet-b0", "/some/file.pth") == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize(
    ("encoder", "same"),
    [
        ("timm-tf_efficientnet_lite0", "tf_efficientnet_lite0"),
        ("timm-mobilenetv3_small_100", "tf_mobilenetv3_small_100"),
        ("timm-regnety_002", "regnety_002"),
        ("dpn68", "dpn68"),
        ("inceptionv4", "inception_v4"),
        ("inceptionresnetv2", "inception_resnet_v2"),
        ("xception", "legacy_xception"),
    ],
)
def test_a_file_is_normalised_alike_under_all_names(encoder: str, same: str) -> None:
    own = timm.models.get_pretrained_cfg(same)
    assert own is not None
    for name in (encoder, f"tu-{same}"):
        assert normalization(name, "/some/file.pth") == (own.mean, own.std)


@pytest.mark.parametrize("encoder", ["timm-mobilenetv3_small_100", "timm-regnety_002"])
def test_fetched_weights_under_older_names(encoder: str) -> None:
    """The library fetches timm's for these, and has no statistics of its own."""
    assert normalization(encoder, "imagenet") == normalization(encoder, "/some/file.pth")


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoder", ["resnet18", "efficientnet-b0", "mit_b0", "vgg11_bn", "densenet121", "tu-resnest14d"]
)
@pytest.mark.parametrize("decoder", [d for d in DECODERS if d != "DPT"])
def test_the_rules_are_true(decoder: str, encoder: str) -> None:
    """A pair that the rules let pass trains a step; one that they refuse fails."""
    for size, batch in (((64, 64), 2), ((128, 160), 2), ((64, 64), 1), ((72, 80), 2)):
        where = {"image_size": size, "batch_size": batch}
        try:
            check(decoder, encoder, **where)
            refused = False
        except SkinsegError:
            refused = True
        try:
            built = getattr(smp, decoder)(encoder_name=encoder, encoder_weights=None).train()
            built(torch.randn(batch, 3, *size)).mean().backward()
            works = True
        except (RuntimeError, ValueError):
            works = False
        assert works != refused, f"{size}, batch of {batch}: works {works}, refused {refused}"
