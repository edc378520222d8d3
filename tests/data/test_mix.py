"""Mixing of the images of a batch: what comes from where, in image and mask alike."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Train
from torch import Tensor

from skinseg.data.transforms.mix import CopyPaste, CutMix, Mix, MixUp
from skinseg.errors import SkinsegError
from skinseg.models.losses import Lovasz
from skinseg.models.net import LesionNet
from skinseg.models.segmenter import LesionSegmenter

KINDS: list[type[Mix]] = [CutMix, MixUp, CopyPaste]
ROWS = [3, 8, 5, 0]


def batch(*, radius: int = 9, size: tuple[int, int] = (64, 80)) -> tuple[Tensor, Tensor]:
    """Skin and a disc of lesion, of one value each, that differ from image to image."""
    ys, xs = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    masks = torch.stack([(ys - 30) ** 2 + (xs - 20 - 9 * n) ** 2 <= radius**2 for n in range(4)])[:, None]
    values = torch.tensor([[200, 180, 160], [190, 150, 150], [220, 200, 190], [160, 140, 120]])
    values = values[:, :, None, None]
    lesions = values // 2 - 10 * torch.arange(4)[:, None, None, None]
    return torch.where(masks, lesions, values).to(torch.uint8), masks.to(torch.uint8)


def mixed(kind: Mix, images: Tensor, masks: Tensor, epoch: int = 0) -> tuple[Tensor, Tensor, Any]:
    return kind(images, masks, rows=ROWS[: len(images)], epoch=epoch, seed=1)


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_from_seed_epoch_and_rows_and_nothing_given_is_changed(kind: type[Mix]) -> None:
    images, masks = batch()
    before = images.clone(), masks.clone()
    torch.manual_seed(0)
    first = mixed(kind(p=1), images, masks)
    torch.manual_seed(1)
    again, other = mixed(kind(p=1), images, masks), mixed(kind(p=1), images, masks, epoch=1)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert first[2] == again[2]
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], images)
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])
    assert first[0].dtype == first[1].dtype == torch.uint8
    assert first[0].shape == images.shape
    assert set(first[1].unique().tolist()) == {0, 1}


@pytest.mark.parametrize("kind", KINDS)
def test_never_and_alone(kind: type[Mix]) -> None:
    images, masks = batch()
    for given, p in (((images, masks), 0), ((images[:1], masks[:1]), 1)):
        found = mixed(kind(p=p), *given)
        assert torch.equal(found[0], given[0])
        assert torch.equal(found[1], given[1])
        assert found[2] is None


def test_cutmix_is_a_box_of_one_other_image_and_its_mask() -> None:
    images, masks = batch()
    areas = []
    for epoch in range(200):
        found, outlines, share = mixed(CutMix(p=1), images, masks, epoch)
        assert share is None
        for row in range(4):
            changed = (found[row] != images[row]).any(dim=0)
            if not changed.any():
                continue
            ys, xs = changed.nonzero(as_tuple=True)
            box = slice(int(ys.min()), int(ys.max()) + 1), slice(int(xs.min()), int(xs.max()) + 1)
            areas.append(changed[box].numel() / changed.numel())
            other = [
                n
                for n in range(4)
                if torch.equal(found[row][:, *box], images[n][:, *box])
                and torch.equal(outlines[row, 0][box], masks[n, 0][box])
            ]
            assert len(other) == 1
            assert other != [row]
            outside = torch.ones_like(changed)
            outside[box] = False
            assert torch.equal(outlines[row, 0][outside], masks[row, 0][outside])
    assert min(areas) < 0.1
    assert max(areas) > 0.8


def test_mixup_blends_with_the_share_that_the_loss_gets() -> None:
    images, masks = batch()
    found, outlines, share = mixed(MixUp(alpha=1, p=1), images, masks)
    assert 0 < share < 1
    assert torch.equal(outlines[:, :1], masks)
    (places,) = (n for n in (1, 2, 3) if torch.equal(outlines[:, 1:], masks.roll(-n, 0)))
    expected = share * images.float() + (1 - share) * images.roll(-places, 0).float()
    assert (found - expected).abs().max() <= 0.5 + 1e-3


def test_a_pasted_lesion_is_in_image_and_mask_and_beside_the_other() -> None:
    images, masks = batch()
    skin = torch.stack([image[:, 0, 0] for image in images]).float()
    pasted = 0
    for epoch in range(20):
        found, outlines, _ = mixed(CopyPaste(p=1), images, masks, epoch)
        for row in range(4):
            new = (outlines[row, 0] == 1) & (masks[row, 0] == 0)
            own = masks[row, 0] == 1
            assert (outlines[row, 0][own] == 1).all(), "both lesions are in the mask"
            assert torch.equal(found[row][:, own], images[row][:, own]), "its own lesion is untouched"
            changed = (found[row] != images[row]).any(dim=0)
            if not new.any():
                assert not changed.any()
                continue
            pasted += 1
            # In the light of this image its values are those of a darker skin.
            ratios = found[row][:, new].float() / skin[row][:, None]
            fits = [
                (ratios - images[n][:, masks[n, 0] == 1][:, :1] / skin[n][:, None]).abs().median() < 0.02
                for n in range(4)
            ]
            assert any(fits)
            assert not fits[row]
            # Around it are a few pixels that sampling has blurred, then skin on skin.
            around = torch.nn.functional.max_pool2d(new[None].float(), 5, 1, 2)[0] > 0
            assert (found[row].float() - skin[row][:, None, None])[:, ~around & ~own].abs().max() <= 1
            assert changed.sum() < 2 * new.sum() + 40
    assert pasted > 40


def test_what_is_not_pasted() -> None:
    images, masks = batch()
    everywhere, nowhere = torch.ones_like(masks), torch.zeros_like(masks)
    at_the_border = nowhere.clone()
    at_the_border[:, :, 20:30, :10] = 1
    for name, outlines in (
        ("all lesion", everywhere), ("no lesion", nowhere), ("cut by the border", at_the_border),
    ):  # fmt: skip
        for epoch in range(5):
            found = mixed(CopyPaste(p=1), images, outlines, epoch)
            assert torch.equal(found[0], images), name
            assert torch.equal(found[1], outlines), name
    # Every second lesion leaves no room but a margin; the others may be pasted.
    crowded = masks.clone()
    crowded[::2] = 0
    crowded[::2, :, 2:-2, 2:-2] = 1
    pasted = 0
    for epoch in range(5):
        found = mixed(CopyPaste(p=1), images, crowded, epoch)
        assert torch.equal(found[1][::2], crowded[::2]), "no room"
        pasted += int((found[1][1::2] != crowded[1::2]).sum())
    assert pasted, "where there is room"
    large = mixed(CopyPaste(largest=0.04, p=1), images, masks)
    assert torch.equal(large[0], images), "a disc takes 0.05 of the image"


def test_the_size_of_a_pasted_lesion() -> None:
    images, masks = batch()
    found = mixed(CopyPaste(scale_range=(0.5, 0.5), p=1), images, masks)[1]
    new = (found.sum(dim=(1, 2, 3)) - masks.sum(dim=(1, 2, 3)))[masks.ne(found).any(dim=(1, 2, 3))]
    assert len(new)
    assert new.float().mean() == pytest.approx(0.25 * float(masks[0].sum()), rel=0.1)


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        (CutMix, {"p": 2}, r"mix: CutMix\.p: found 2, expected 0 to 1"),
        (CutMix, {"alpha": 0}, r"CutMix\.alpha: found 0"),
        (MixUp, {"alpha": -1}, r"MixUp\.alpha: found -1"),
        (CopyPaste, {"largest": 1.5}, r"CopyPaste\.largest"),
        (CopyPaste, {"scale_range": (0.9, 0.5)}, r"scale_range\[1\]: found 0\.5, expected 0\.9 to 1"),
        (CopyPaste, {"tries": 0}, r"CopyPaste\.tries"),
    ],
)
def test_arguments_out_of_range(kind: type[Mix], arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SkinsegError, match=said):
        kind(**arguments)


@pytest.mark.parametrize(
    ("option", "augment"), [("cutmix", "none"), ("mixup", "light_device"), ("copy_paste", "light")]
)
def test_a_run(option: str, augment: str, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training batches are mixed after augmentation and before they are shrunk; no others are."""
    rows: list[tuple[int, ...]] = []
    seen: dict[str, list[dict[str, Any]]] = {"training_step": [], "validation_step": [], "test_step": []}
    mix = Mix.__call__

    def noted(self: Mix, *batch: Tensor, **draw: Any) -> Any:
        rows.append((draw["epoch"], *draw["rows"]))
        return mix(self, *batch, **draw)

    monkeypatch.setattr(Mix, "__call__", noted)
    for name, batches in seen.items():
        step = getattr(LesionSegmenter, name)
        monkeypatch.setattr(
            LesionSegmenter,
            name,
            lambda self, batch, n, s=step, b=batches: b.append(batch) or s(self, batch, n),
        )
    train(
        f"mix={option}", "mix.p=1", f"augment={augment}", "deep_supervision=[0.5]", "trainer.max_epochs=2",
        "callbacks.progressive_resizing.start=0.5", "data.image_size=[64,64]",
    )  # fmt: skip
    steps = seen["training_step"]
    rows = [row for row in rows if row[1:] != (0, 1, 2, 3)]  # the trial before the data are read
    assert len(rows) == len(set(rows)) == len(steps) > 4
    assert {len(row) for row in rows} == {1 + 4}
    for batch in steps:
        assert ("share" in batch) == (option == "mixup")
        assert batch["mask"].shape[1] == 1 + (option == "mixup")
    assert steps[0]["mask"].shape[2:] == (32, 32)
    assert seen["validation_step"]
    assert seen["test_step"]
    for batch in (*seen["validation_step"], *seen["test_step"]):
        assert "share" not in batch
        assert batch["mask"].shape[1] == 1


def test_the_loss_of_blended_images_is_the_mean_of_both() -> None:
    images, masks = batch(size=(64, 64))
    network = torch.nn.Conv2d(3, 1, 3, padding=1)
    segmenter = LesionSegmenter(
        LesionNet(network), Lovasz(), optimizer=torch.optim.SGD, scheduler=lambda *_: {}
    )
    trainer = SimpleNamespace(current_epoch=0, global_step=0, loggers=())
    segmenter.log = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    segmenter._trainer = trainer  # type: ignore[assignment]
    trainer.log_every_n_steps = 1
    other = masks.roll(1, 0)
    first, second = (float(Lovasz()(segmenter(images), mask).detach()) for mask in (masks, other))
    step = {"image": images, "mask": torch.cat([masks, other], dim=1), "share": 0.3, "image_id": ["a"] * 4}
    assert float(segmenter.training_step(step, 0).detach()) == pytest.approx(
        0.3 * first + 0.7 * second, rel=1e-5
    )
