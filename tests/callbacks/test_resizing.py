"""Progressive resizing: which size when, images and masks together, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from conftest import Train
from lightning.pytorch.callbacks import Callback
from torch import nn

from skinseg.callbacks.resizing import ProgressiveResizing, shrink
from skinseg.data.inputs import resize_image, resize_mask
from skinseg.errors import InterruptedRunError, SkinsegError

KEY = "callbacks.progressive_resizing"
RUN = ("trainer.max_epochs=5", "callbacks.panels=null", "test=false", "data.image_size=[48,64]")
HALF = (*RUN, f"{KEY}.start=0.5", f"{KEY}.until=0.6")
NOTE = "+callbacks.note={_target_: callbacks.test_resizing.Note, path: '${run_dir}/note.pt'}"


class Note(Callback):
    """Writes down the size of what the network is given, and the images of each step."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.seen: dict[str, list[Any]] = {"train": [], "val": []}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert batch["image"].shape[-2:] == batch["mask"].shape[-2:]
        assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
        self.seen["train"].append((trainer.global_step, tuple(batch["image"].shape[-2:])))
        torch.save(self.seen, self.path)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.seen["val"].append(tuple(batch["image"].shape[-2:]))
        torch.save(self.seen, self.path)


def noted(folder: Path) -> dict[str, list[Any]]:
    return torch.load(folder / "note.pt", weights_only=True)  # type: ignore[no-any-return]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]  # type: ignore[no-any-return]


def test_sizes_grow_in_equal_parts() -> None:
    one = ProgressiveResizing(start=0.5, until=0.6)
    assert [one.size_at(part, (96, 128), 1) for part in (0, 0.999, 1, 5)] == [(48, 64)] * 2 + [(96, 128)] * 2
    three = ProgressiveResizing(start=0.5, sizes=3)
    sizes = [three.size_at(step / 9, (256, 384), 32) for step in range(10)]
    assert sizes == [(128, 192)] * 3 + [(160, 256)] * 3 + [(224, 320)] * 3 + [(256, 384)]
    assert ProgressiveResizing(start=0.1).size_at(0, (64, 64), 32) == (32, 32)


@pytest.mark.parametrize("option", ["start=0", "start=1.1", "until=0", "until=2", "sizes=0"])
def test_values_out_of_range(train: Train, option: str) -> None:
    with pytest.raises(SkinsegError, match=rf"progressive_resizing: .*{option.split('=')[0]}=.*: expected"):
        train(f"{KEY}.{option}")


def test_images_and_masks_stay_together() -> None:
    """Blocks of twice the size become single pixels' neighbourhoods: the mask is where the image is dark."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(4, 1, 6, 8, generator=generator).round().to(torch.uint8)
    masks = masks.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    # Without noise the image says at each pixel how much of it is lesion.
    images = (200 - 100 * masks).expand(-1, 3, -1, -1)
    small, small_masks = shrink(images, masks, (24, 32))
    assert small.shape == (4, 3, 24, 32)
    assert small_masks.shape == (4, 1, 24, 32)
    assert small.dtype == small_masks.dtype == torch.uint8
    assert set(small_masks.unique().tolist()) == {0, 1}
    clear = small[:, :1] != 150
    assert clear.float().mean() > 0.9
    assert torch.equal(small_masks[clear], (small[:, :1] < 150)[clear].to(torch.uint8))
    # Where a block is one colour, its inner pixels are too: nothing has moved.
    centres = (slice(None), slice(None), slice(1, None, 4), slice(1, None, 4))
    assert torch.equal(small_masks[centres], masks[:, :, ::8, ::8])
    assert torch.equal(small[centres], (200 - 100 * masks[:, :, ::8, ::8]).expand(-1, 3, -1, -1))


def test_as_if_the_file_had_been_read_at_that_size() -> None:
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(128), indexing="ij")
    mask = ((rows - 40) ** 2 + (columns - 70) ** 2 < 900).to(torch.uint8)
    image = torch.stack([2 * rows, columns, 200 - 120 * mask]).to(torch.uint8)
    small, small_mask = shrink(image[None], mask[None, None], (48, 64))
    expected = resize_image(image.permute(1, 2, 0).contiguous().numpy(), (48, 64))
    apart = (small[0].permute(1, 2, 0).int() - torch.from_numpy(expected).int()).abs()
    assert apart.float().mean() < 1
    assert (small_mask[0, 0].numpy() != resize_mask(mask.numpy() * 255, (48, 64))).mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cache", "augment"),
    [("memmap", "light_device"), ("memmap", "light"), ("none", "light"), ("ram", "none")],
)
def test_training_grows_and_validation_is_at_the_full_size(
    train: Train, caplog: pytest.LogCaptureFixture, cache: str, augment: str
) -> None:
    caplog.set_level("INFO")
    folder = train(*HALF, NOTE, f"data.cache={cache}", f"augment={augment}")
    seen = noted(folder)
    steps = len(seen["train"])
    assert steps % 5 == 0
    small = steps * 3 // 5
    assert [size for _, size in seen["train"]] == [(24, 32)] * small + [(48, 64)] * (steps - small)
    assert set(seen["val"]) == {(48, 64)}
    said = [record.getMessage() for record in caplog.records if "pixels from step" in record.getMessage()]
    assert said == [
        "Training at 24x32 pixels from step 1 on.",
        f"Training at 48x64 pixels from step {small + 1} on.",
    ]
    table = pd.read_csv(folder / "metrics.csv")
    assert table["train/image_height"].dropna().tolist() == [24] * 3 + [48] * 2
    assert table["train/image_width"].dropna().tolist() == [32] * 3 + [64] * 2


def test_a_size_lasts_through_accumulated_batches(train: Train) -> None:
    folder = train(
        *RUN, NOTE, f"{KEY}.start=0.5", f"{KEY}.until=0.5", "trainer.accumulate_grad_batches=2",
        "trainer.limit_train_batches=3", "trainer.max_epochs=3", "logger=none",
    )  # fmt: skip
    # Two steps an epoch, of two batches and of one; three of the six steps are small.
    small, full = (24, 32), (48, 64)
    assert [size for _, size in noted(folder)["train"]] == [small] * 5 + [full] * 4


@pytest.mark.slow
def test_off_it_changes_nothing(train: Train) -> None:
    run = (*RUN, "logger=none", "trainer.max_epochs=2")
    on, off = train(*run, run_dir="on"), train(*run, f"{KEY}=null", run_dir="off")
    assert all(torch.equal(a, b) for a, b in zip(weights(on).values(), weights(off).values(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 13])  # before and after the size changes, in the middle of an epoch
def test_resumed_is_as_if_never_stopped(train: Train, step: int) -> None:
    run = (*HALF, "logger=none", f"{KEY}.until=0.5", "data.cache=memmap", "augment=light_device")
    whole = train(*run, NOTE, run_dir="whole")
    steps = len(noted(whole)["train"])
    assert steps % 5 == 0
    assert step % (steps // 5) != 0
    stop = f"+callbacks.stop={{_target_: conftest.InterruptAt, step: {step}}}"
    with pytest.raises(InterruptedRunError):
        train(*run, stop, run_dir="stopped")
    last = whole.parent / "stopped/checkpoints/last.ckpt"
    resumed = train(*run, NOTE, f"ckpt_path={last}", run_dir="resumed")
    assert noted(resumed)["train"] == noted(whole)["train"][step:]
    one, other = weights(whole), weights(resumed)
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_early_stopping_waits_for_the_full_size(train: Train) -> None:
    # No validation is better than the first by more than 1.
    stop = ("callbacks.early_stopping.patience=2", "+callbacks.early_stopping.min_delta=1.0")
    run = (*RUN, "trainer.max_epochs=10", "logger=none", *stop)
    epochs = {}
    for start in (1.0, 0.5):
        folder = train(*run, f"{KEY}.start={start}", f"{KEY}.until=0.6", run_dir=str(start))
        epochs[start] = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["epoch"] + 1
    # Of 10 epochs 6 are small; the validation after the sixth is the first that counts.
    assert epochs == {1.0: 3, 0.5: 7}


class Fixed(nn.Module):
    """Takes images of one size."""

    def __init__(self, side: int, **_: Any) -> None:
        super().__init__()
        self.side = side
        self.head = nn.Conv2d(3, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[-1] == self.side, f"not {self.side} pixels"
        return self.head(images)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("model=dpt", "model.encoder_name=tu-vit_tiny_patch16_224", "data.image_size=[224,224]"),
            r"start=0\.5 of data\.image_size=\[224, 224\]: DPT cannot train on 2 images of 112x112 pixels: "
            r"Input height .*Raise it, or set it to 1",
        ),
        (
            ("model=pan", "model.encoder_name=resnet18", "data.image_size=[128,128]"),
            r"start=0\.5 of data\.image_size=\[128, 128\]: PAN cannot train on 2 images of 64x64 pixels",
        ),
        (
            ("model=fpn", "model.encoder_name=tu-test_resnet", "data.image_size=[32,32]"),
            r"start=0\.5, sizes=1: FPN takes multiples of 32 pixels, and that next to a smaller size is "
            r"data\.image_size=\[32, 32\] itself\.",
        ),
        (
            ("model._target_=callbacks.test_resizing.Fixed", "+model.side=64", "data.image_size=[64,64]"),
            r"start=0\.5 of .*: Fixed cannot train on 2 images of 32x32 pixels: not 64 pixels\.",
        ),
    ],
)  # fmt: skip
def test_sizes_that_a_network_does_not_take_are_refused_before_the_run(
    train: Train, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SkinsegError, match=rf"callbacks\.progressive_resizing\.{message}"):
        train(*overrides, "model.encoder_weights=null", f"{KEY}.start=0.5")
    assert not (tmp_path / "run/metrics.csv").exists()
    assert not (tmp_path / "run/checkpoints").exists()
