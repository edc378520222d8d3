"""Samples for training and scoring, and the order in which they come."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate

from skinseg.data.cache import Pixels
from skinseg.data.inputs import input_files
from skinseg.data.photographs import (
    DEFAULT_MAX_MEGAPIXELS,
    UnreadableFileError,
)
from skinseg.data.transforms.changes import Preprocessing, Transform, augmented
from skinseg.errors import SkinsegError


class Sample(TypedDict, total=False):
    """One image on its way to the network.

    Attributes:
        image: uint8 tensor of shape (3, height, width), RGB, at the network's input size.
        mask: uint8 tensor of shape (1, height, width), 0 or 1, at the network's input size.
        truth: bool tensor of shape (native height, native width); only where scores are taken.
        image_id: The catalog's id.
        index: Row of the data set.
    """

    image: Tensor
    mask: Tensor
    truth: Tensor
    image_id: str
    index: int


class LesionDataset(Dataset[Sample]):
    """Images with masks at the network's input size, and at native size where they are scored.

    A key is (epoch, row): the augmentation is drawn from (seed, epoch, row) alone, so it differs between
    epochs and images and is the same for any number of workers and after a resume.

    Args:
        table: Rows of a catalog, each with a mask.
        image_size: Height and width of the network's input, in pixels.
        transform: Augmentation. None: none.
        seed: Seed of the augmentation.
        with_truth: Also give the mask at native size.
        pixels: Decoded images and masks, these among them. None: the files are decoded each time.
        preprocess: What is done to each image that is decoded here; `pixels` are preprocessed already.
        max_megapixels: Most millions of pixels of a file that is decoded here.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        image_size: tuple[int, int],
        *,
        transform: Transform | None = None,
        seed: int = 0,
        with_truth: bool = False,
        pixels: Pixels | None = None,
        preprocess: Preprocessing | None = None,
        max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
    ) -> None:
        self.files = input_files(table, max_megapixels)
        self.image_ids = [file.image_id for file in self.files]
        self.image_size = image_size
        self.transform = transform
        self.seed = seed
        self.with_truth = with_truth
        self._pixels = pixels
        self._preprocess = preprocess
        self._rows = np.empty(0, np.int64) if pixels is None else pixels.rows_of(self.image_ids)

    @property
    def gathers(self) -> bool:
        """Whether a batch is copied in one go: the images are decoded, and augmented elsewhere or not."""
        return self._pixels is not None and self.transform is None

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, row = key if isinstance(key, tuple) else (0, key)
        truth = None
        if self._pixels is not None:
            image, mask = self._pixels[int(self._rows[row])]
            if self.with_truth:
                truth = self._truth(row)
        else:
            with _readable():
                image, mask, truth = self.files[row].read(self.image_size, self._preprocess)
        if self.transform is not None:
            seeds = np.random.SeedSequence([self.seed, epoch, row])
            # One generator for all transforms of a chain: albumentations' set_random_seed would start each of
            # them at the same number, so that flips in both directions always come together.
            self.transform.set_random_state(
                np.random.default_rng(seeds), random.Random(int(seeds.generate_state(1)[0]))
            )
            image, mask = augmented(self.transform, image, mask)
        sample: Sample = {
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "mask": torch.from_numpy(np.ascontiguousarray(mask))[None],
            "image_id": self.image_ids[row],
            "index": row,
        }
        if self.with_truth:
            assert truth is not None
            sample["truth"] = torch.from_numpy(truth > 128)
        return sample

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[Sample] | dict[str, Any]:
        """Returns a batch: samples, or where they can be copied in one go the batch itself."""
        if self._pixels is None or self.transform is not None:
            return [self[key] for key in keys]
        rows = [key[1] if isinstance(key, tuple) else key for key in keys]
        images, masks = self._pixels.take(self._rows[rows])
        batch: dict[str, Any] = {
            "image": images,
            "mask": masks,
            "image_id": [self.image_ids[row] for row in rows],
            "index": torch.tensor(rows),
        }
        if self.with_truth:
            batch["truth"] = [torch.from_numpy(self._truth(row) > 128) for row in rows]
        return batch

    def _truth(self, row: int) -> NDArray[np.uint8]:
        with _readable():
            return self.files[row].read_truth()


@contextmanager
def _readable() -> Iterator[None]:
    """Turns a file that cannot be decoded in the middle of a run into a message."""
    try:
        yield
    except UnreadableFileError as error:
        raise SkinsegError(
            f"{error}. Replace the file; data.verify=true finds all such files at once."
        ) from error


def collate(samples: Sequence[Sample] | dict[str, Any]) -> dict[str, Any]:
    """Stacks samples to a batch; `truth` stays a list, for native sizes differ. A batch stays what it is."""
    if isinstance(samples, dict):
        return samples
    batch: dict[str, Any] = default_collate(
        [{key: value for key, value in sample.items() if key != "truth"} for sample in samples]
    )
    if "truth" in samples[0]:
        batch["truth"] = [sample["truth"] for sample in samples]
    return batch


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, row) for one rank; the order depends on the seed and the epoch alone.

    Every rank gets the same number of rows: rows from the start are repeated to fill up, and scores drop
    the repeats by image id.

    Args:
        rows: Number of rows of the data set.
        shuffle: A new order each epoch. Without it the rows come in order.
        seed: Seed of the order.
        rank: This process's number.
        world_size: Number of processes.
        done: Returns how many rows of this rank's epoch were already used, for a run that is resumed in the
            middle of an epoch. Asked at the start of each epoch.
    """

    def __init__(
        self,
        rows: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        done: Callable[[], int] = lambda: 0,
    ) -> None:
        self._rows = rows
        self._shuffle = shuffle
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0
        self._done = done

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-self._rows // self._world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self._epoch
        order = np.arange(self._rows)
        if self._shuffle:
            order = np.random.default_rng([self._seed, epoch]).permutation(self._rows)
        mine = np.resize(order, len(self) * self._world_size)[self._rank :: self._world_size]
        return iter([(epoch, int(row)) for row in mine[self._done() :]])
