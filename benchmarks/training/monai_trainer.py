"""MONAI: SupervisedTrainer on a CacheDataset with MONAI's dictionary transforms, as in its tutorials.

Decoding, resizing and scaling to [0, 1] stand before the first random transform, so that CacheDataset keeps
their result. Flips, an affine transform, contrast and brightness follow `augment=light` as closely as MONAI's
own transforms allow, with the same probabilities and ranges. Validation is a SupervisedEvaluator with
MeanDice and MeanIoU at the images' own size. Mixed precision is MONAI's `amp`, which exists on GPUs alone.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, PILReader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import MeanDice, MeanIoUHandler, from_engine
from monai.inferers import SimpleInferer
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    Lambdad,
    LoadImaged,
    NormalizeIntensityd,
    RandAffined,
    RandFlipd,
    RandScaleIntensityd,
    RandStdShiftIntensityd,
    Resize,
    Resized,
    ScaleIntensityRanged,
)
from monai.utils import set_determinism
from torch import Tensor

from benchmarks.training.work import (
    MEAN,
    STD,
    Result,
    StepClock,
    Work,
    bce_dice,
    peak_memory,
    rate,
    timed_loading,
    unet,
)

# PILReader gives (width, height); the network does not care, but the masks of validation have to agree.
READER = partial(PILReader, reverse_indexing=False)


def dataset(work: Work, side: str) -> CacheDataset:
    """Returns images and masks, cached up to the first random transform."""
    train = side == "train"
    both = ["image", "label"]
    size = (work.size, work.size)
    load = [
        LoadImaged(both, reader=READER),
        EnsureChannelFirstd(both),
        ScaleIntensityRanged(both, a_min=0, a_max=255, b_min=0, b_max=1),
        # A label stays at its own size where it is scored.
        *(
            [Resized(both, size, mode=("area", "nearest"))]
            if train
            else [Resized("image", size, mode="area")]
        ),
    ]
    augment = [
        RandFlipd(both, prob=0.5, spatial_axis=0),
        RandFlipd(both, prob=0.5, spatial_axis=1),
        RandAffined(
            both,
            prob=0.7,
            rotate_range=np.pi / 6,
            scale_range=(0.15, 0.15),
            translate_range=(0.06 * work.size, 0.06 * work.size),
            mode=("bilinear", "nearest"),
            padding_mode="reflection",
        ),
        RandScaleIntensityd("image", factors=0.15, prob=0.5),
        RandStdShiftIntensityd("image", factors=0.15, prob=0.5),
    ]
    normalise = NormalizeIntensityd("image", subtrahend=MEAN, divisor=STD, channel_wise=True)
    items = [{"image": image, "label": mask} for image, mask in zip(*work.files(side), strict=True)]
    return CacheDataset(
        items, Compose([*load, *(augment if train else []), normalise]), num_workers=1, progress=False
    )


def loader(work: Work, data: CacheDataset, *, train: bool) -> DataLoader:
    """Returns batches; those for training are shuffled."""
    mixed = not train and len({item["label"].shape for item in data}) > 1
    return DataLoader(
        data,
        batch_size=1 if mixed else work.batch,  # images of several sizes do not stack
        shuffle=train,
        drop_last=train,
        num_workers=work.workers,
        pin_memory=work.device == "cuda",
        persistent_workers=work.workers > 0,
    )


class ClockedIterator:
    """Tells the clock how long each batch was waited for."""

    def __init__(self, batches: DataLoader, clock: StepClock) -> None:
        self._batches = batches
        self._clock = clock

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Any:
        iterator = iter(self._batches)
        while True:
            begin = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._clock.waited(time.perf_counter() - begin)
            yield batch


def run(work: Work) -> Result:
    """Measures speed."""
    set_determinism(work.seed)
    # What set_determinism also does; the others are free to choose their convolutions.
    torch.backends.cudnn.deterministic = False
    network, loss = unet(work), bce_dice()
    clock = StepClock(work)
    data = dataset(work, "train")
    trainer = SupervisedTrainer(
        device=torch.device(work.device),
        max_epochs=1,
        train_data_loader=ClockedIterator(loader(work, data, train=True), clock),
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), lr=work.lr),
        loss_function=lambda logits, masks: loss(logits, masks),
        inferer=SimpleInferer(),
        amp=work.device == "cuda",
        decollate=False,
    )
    trainer.add_event_handler(
        "ITERATION_COMPLETED", lambda engine: clock.stepped(engine.state.output["loss"])
    )
    trainer.run()
    result = clock.result | peak_memory(work)
    held_out = dataset(work, "val")
    evaluator = SupervisedEvaluator(
        device=torch.device(work.device),
        val_data_loader=loader(work, held_out, train=False),
        network=network,
        inferer=SimpleInferer(),
        postprocessing=Compose(
            [
                Activationsd("pred", sigmoid=True),
                _ToLabelSize(),
                AsDiscreted("pred", threshold=0.5),
                Lambdad("label", lambda label: (label > 0.5).float()),
            ]
        ),
        key_val_metric={"dice": MeanDice(output_transform=from_engine(["pred", "label"]))},
        additional_metrics={"iou": MeanIoUHandler(output_transform=from_engine(["pred", "label"]))},
        amp=work.device == "cuda",
    )
    result["validate_images_per_s"] = rate(work, len(held_out), evaluator.run)
    result["load_images_per_s"] = timed_loading(work, loader(work, data, train=True))
    return result


class _ToLabelSize:
    """Resizes a prediction to its label's size."""

    def __call__(self, item: dict[str, Tensor]) -> dict[str, Tensor]:
        resize = Resize(item["label"].shape[1:], mode="bilinear")
        return {**item, "pred": resize(item["pred"])}
