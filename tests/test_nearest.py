"""Which known word is proposed in place of a mistyped one."""

from __future__ import annotations

import pytest

from skinseg.nearest import nearest


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("modle", ["mode", "model", "monitor"], "model"),
        ("unte", ["unet", "net"], "unet"),
        ("checkpoint", ["bins", "ckpt", "gallery"], "ckpt"),
        ("checkpoint", ["ckpt_path", "gradient_steps"], "ckpt_path"),
        ("opt", ["loss", "optimizer"], "optimizer"),
        ("learning_rate", ["lr", "lr_scaling"], "lr"),
        ("Batch-Size", ["batch_size"], "batch_size"),
        ("rl", ["eps", "lr"], "lr"),
        ("seed", ["sead", "seed"], "seed"),
    ],
)
def test_what_was_meant(word: str, known: list[str], meant: str) -> None:
    assert nearest(word, known) == [meant]


@pytest.mark.parametrize(
    ("word", "known"),
    [("drop_path", ["decoder_channels", "classes"]), ("x", ["model"]), ("workers", ["scores", "output"])],
)
def test_what_is_far(word: str, known: list[str]) -> None:
    assert nearest(word, known) == []


def test_several_in_order() -> None:
    assert nearest("resnet81", ["resnet101", "resnet18", "vgg"], 3) == ["resnet18", "resnet101"]
