"""Samples for training and scoring, and the order in which they come."""

from __future__ import annotations

import errno
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from skinseg.data.changes import Preprocessing, Transform, augmented, preprocessed
from skinseg.data.files import fit_mask
from skinseg.data.photographs import (
    DEFAULT_MAX_MEGAPIXELS,
    UnreadableFileError,
    read_frame,
    read_image,
    read_mask,
)
from skinseg.errors import SkinsegError
from skinseg.machine import no_shared_memory

if TYPE_CHECKING:
    from skinseg.data.cache import Pixels

T = TypeVar("T")

# What a step and a checkpoint may take after a signal.
_GRACE_S = 300
_ENDING = (signal.SIGINT, signal.SIGTERM)

# OpenCV's own threads would compete with the loader's worker processes.
cv2.setNumThreads(0)


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


@dataclass(frozen=True)
class InputFiles:
    """An image with its mask on disk.

    Attributes:
        image_id: The catalog's id.
        image: The image file.
        mask: The mask file.
        native_size: Height and width of the image in pixels; 0 where the catalog does not know.
        max_megapixels: Most millions of pixels of either.
    """

    image_id: str
    image: str
    mask: str
    native_size: tuple[int, int]
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS

    def read(
        self, size: tuple[int, int], preprocess: Preprocessing | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        """Decodes, resizes and preprocesses.

        Args:
            size: Height and width of the network's input, in pixels.
            preprocess: As in `prepare`.

        Returns:
            The image (height, width, 3), RGB; its mask (height, width), 0 or 1; and the mask at the image's
            native size, 0 or 255.

        Raises:
            UnreadableFileError: A file cannot be decoded, or the mask is in a form that would be misread.
        """
        image = read_input(self.image, size, preprocess, self.max_megapixels)
        truth = self.read_truth()
        return image, resize_mask(truth, size), truth

    def read_truth(self) -> NDArray[np.uint8]:
        """Decodes the mask alone, at the image's native size: 0 or 255."""
        limit = self.max_megapixels
        native = self.native_size if self.native_size[0] else read_frame(self.image, limit).size
        return fit_mask(read_mask(self.mask, limit), native)

    def read_photograph(self) -> NDArray[np.uint8]:
        """Decodes the image at its native size, RGB, without any preprocessing."""
        return read_image(self.image, max_megapixels=self.max_megapixels)


def read_input(
    path: str,
    size: tuple[int, int],
    preprocess: Preprocessing | None = None,
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
) -> NDArray[np.uint8]:
    """Reads a photograph as every network sees it; see `read_photograph` and `prepare`.

    Raises:
        UnreadableFileError: It cannot be decoded.
    """
    return prepare(read_image(path, size, max_megapixels), size, preprocess)


def prepare(
    image: NDArray[np.uint8], size: tuple[int, int], preprocess: Preprocessing | None = None
) -> NDArray[np.uint8]:
    """Makes what every network sees of a photograph, in training and afterwards.

    Args:
        image: uint8 array of shape (H, W, 3), RGB, decoded for this size.
        size: Height and width of the network's input, in pixels.
        preprocess: What is done to the resized image. None: nothing.

    Returns:
        uint8 array of shape (height, width, 3), RGB.

    Raises:
        SkinsegError: What `preprocess` makes of it is no such array.
    """
    image = resize_image(image, size)
    return image if preprocess is None else preprocessed(preprocess, image)


def input_files(table: pd.DataFrame, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS) -> list[InputFiles]:
    """Returns the files of a catalog's rows, each of which has a mask."""
    columns = (table[name].tolist() for name in ("image_id", "image", "mask", "height", "width"))
    return [
        InputFiles(image_id, image, mask, (height, width), max_megapixels)
        for image_id, image, mask, height, width in zip(*columns, strict=True)
    ]


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


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resizes (height, width, 3), by pixel areas where it shrinks, bilinearly where it grows."""
    height, width = size
    if image.shape[:2] == size:
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), dtype=np.uint8)


def resize_mask(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resizes a mask of 0 and 255 and returns 0 and 1: lesion where it covers at least half of a pixel."""
    return (resize_image(mask, size) > 127).astype(np.uint8)


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


class LateDataLoader(DataLoader[Any]):
    """Asks its sampler when the first batch is asked for, and not before; keeps messages what they are.

    Lightning takes an iterator before it restores a checkpoint and tells the sampler the epoch; worker
    processes would by then have begun with the images of the wrong epoch.

    Args:
        *args: As of a DataLoader.
        ahead: Prepare the next batch in a thread while the network works on the last one. For data sets that
            only copy; where Python works, the thread would be in the way.
        **kwargs: As of a DataLoader.
    """

    def __init__(self, *args: Any, ahead: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ahead = ahead

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches: Any = None
        before = set(active_children())
        try:
            with _signals_held_back():
                batches = super().__iter__()
            yield from _one_ahead(batches) if self.ahead else batches
        except (SkinsegError, RuntimeError, OSError) as error:
            said = _said(error) if self.num_workers else None
            if said is None:
                raise
            # Loader processes that nothing but the garbage collector ends take ten seconds to end, and those
            # that a traceback holds until the program's end far longer.
            made: Any = self._iterator if batches is None else batches
            if made is not None:
                made._shutdown_workers()
            else:  # those of an iterator that was not even made
                for process in set(active_children()) - before:
                    process.kill()
            self._iterator = None
            raise said from None


def _said(error: Exception) -> SkinsegError | None:
    """Returns an error without the traceback that torch writes around its text in a loader process.

    None for a bug. Without room for what processes share, torch ends in several ways, and the system cannot
    make their locks.
    """
    if isinstance(error, OSError):
        return no_shared_memory(error) if error.errno == errno.ENOSPC else None
    if isinstance(error, RuntimeError):
        return no_shared_memory(error) if "shared memory" in str(error).lower() else None
    kind = type(error)
    assert issubclass(kind, SkinsegError)
    return kind(str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip())


def _one_ahead(batches: Iterator[T]) -> Iterator[T]:
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = pool.submit(next, batches, None)
            yield batch


def prepare_worker(_worker: int) -> None:
    """Prepares a loader process: one thread, for the processes already fill the cores, and time at a signal.

    Ctrl-C, schedulers and torchrun signal all processes of a group. The main process still needs the loaders
    for the step after which it saves, and they end with it. One that hangs ends by an alarm.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    can_end_later = hasattr(signal, "alarm")  # not on Windows
    signal.signal(signal.SIGTERM, _end_later if can_end_later else signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Lets loader processes start with signals held back: one that is not prepared yet would end by them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_loader_processes(but: Sequence[BaseProcess] = ()) -> None:
    """Ends the loader processes that are left, which take their time at the signal that Python would send.

    Args:
        but: Children of this process that are somebody else's.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    # PyTorch's handler would take their end for a failure. Windows has no such signal.
    handled = in_main_thread and hasattr(signal, "SIGCHLD")
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if handled else None
    for process in set(active_children()).difference(but):
        process.kill()
        process.join()
    if before is not None:
        signal.signal(signal.SIGCHLD, before)


def _end_later(*_: object) -> None:
    signal.alarm(_GRACE_S)
