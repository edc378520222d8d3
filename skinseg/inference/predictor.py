"""Lesion probabilities of photographs, files or arrays, at their own size, one after the other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from skinseg.data.inputs import prepare
from skinseg.data.loader import LateDataLoader, prepare_worker
from skinseg.data.photographs import DEFAULT_MAX_MEGAPIXELS, Frame, UnreadableFileError, read_photograph
from skinseg.data.transforms.changes import Preprocessing
from skinseg.errors import SkinsegError
from skinseg.models.net import LesionNet, resize

Device = Literal["auto", "cpu", "cuda", "mps"]
Photograph = str | NDArray[np.uint8]
_REDUCED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image.

    Attributes:
        row: Which of the images.
        probability: float32 array of shape (H, W), the image's own size, upright; values in [0, 1].
        seconds: Time of the network and the resizing for this image, its share of the batch.
        turned: Whether the file stores the image turned or mirrored, with an orientation that says so.
    """

    row: int
    probability: NDArray[np.float32]
    seconds: float
    turned: bool


class NotFiniteError(SkinsegError):
    """A probability is NaN."""


class Predictor:
    """Applies a network to photographs; equal ones give equal probabilities, whatever stands beside them.

    Args:
        net: What is applied; it is put into evaluation mode.
        input_size: Height and width of the network's input, in pixels.
        preprocess: What is done to each resized photograph, as in training. None: nothing.
        batch_size: Images per forward pass. The last batch is filled up, for a convolution may round
            differently in a batch of another size.
        num_workers: Loader processes.
        device: "auto" takes a GPU where there is one.
        precision: Lightning's name of the precision: "bf16-mixed" and "16-mixed" as in training, anything
            else is float32.
        max_megapixels: A photograph of more millions of pixels counts as one that cannot be decoded.

    Raises:
        SkinsegError: The device is not there.
    """

    def __init__(
        self,
        net: LesionNet,
        *,
        input_size: tuple[int, int],
        preprocess: Preprocessing | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        device: Device = "auto",
        precision: str | int = "32-true",
        max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
    ) -> None:
        self.device = _device(device)
        self.net = net.eval().to(self.device)
        self.net.network.to(memory_format=net.memory_format)
        self._input_size = input_size
        self._preprocess = preprocess
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._max_megapixels = max_megapixels
        self._reduced = _REDUCED.get(str(precision))

    def __call__(
        self, images: Sequence[Photograph], unreadable: dict[int, str] | None = None
    ) -> Iterator[Prediction]:
        """Predicts images in order.

        Args:
            images: Files, or uint8 arrays of shape (H, W, 3), RGB, upright.
            unreadable: Takes the rows that cannot be decoded, with the reason. None: the first one raises.

        Yields:
            A prediction for each readable image.

        Raises:
            NotFiniteError: The network gives NaN; the image is named.
            SkinsegError: A file cannot be decoded, and `unreadable` is None; or `preprocess` makes no image.
        """
        loader = LateDataLoader(
            _Photographs(images, self._input_size, self._preprocess, self._max_megapixels),
            batch_size=self._batch_size,
            num_workers=min(self._num_workers, len(images)),
            collate_fn=list,
            worker_init_fn=prepare_worker,
        )
        waiting: list[_Photograph] = []
        for photographs in loader:
            for photograph in photographs:
                if photograph.problem is None:
                    waiting.append(photograph)
                elif unreadable is None:
                    raise SkinsegError(f"{photograph.problem}. Replace the file or leave it out.")
                else:
                    unreadable[photograph.row] = photograph.problem
            while len(waiting) >= self._batch_size:
                yield from self._predict(images, waiting[: self._batch_size])
                waiting = waiting[self._batch_size :]
        if waiting:
            yield from self._predict(images, waiting)

    def _predict(self, images: Sequence[Photograph], batch: list[_Photograph]) -> Iterator[Prediction]:
        missing = self._batch_size - len(batch)
        pixels = torch.stack([photograph.pixels for photograph in batch] + [batch[-1].pixels] * missing)
        clock = _Clock(self.device)
        with torch.inference_mode(), self._autocast():
            logits = self.net(pixels.to(self.device))[: len(batch)]
        probabilities = torch.sigmoid(logits.float())
        seconds = clock.seconds() / len(batch)
        for photograph, probability in zip(batch, probabilities, strict=True):
            clock = _Clock(self.device)
            native = resize(probability[None], photograph.frame.size)[0, 0].cpu().numpy()
            if not np.isfinite(native).all():
                name = _called(images[photograph.row], photograph.row)
                raise NotFiniteError(
                    f"The network gives NaN for {name}. Its weights are broken, or "
                    "overflow at this precision; take another checkpoint, or set precision=32-true."
                )
            yield Prediction(photograph.row, native, seconds + clock.seconds(), photograph.frame.turned)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self._reduced is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self._reduced)


@dataclass(frozen=True)
class _Photograph:
    row: int
    pixels: Tensor
    frame: Frame
    problem: str | None = None


class _Photographs(Dataset[_Photograph]):
    def __init__(
        self,
        images: Sequence[Photograph],
        input_size: tuple[int, int],
        preprocess: Preprocessing | None,
        max_megapixels: float,
    ) -> None:
        self._images = images
        self._input_size = input_size
        self._preprocess = preprocess
        self._max_megapixels = max_megapixels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> _Photograph:
        image = self._images[row]
        try:
            if isinstance(image, np.ndarray):
                pixels, frame = _checked(image, row), Frame(image.shape[0], image.shape[1], turned=False)
            else:
                pixels, frame = read_photograph(image, self._input_size, self._max_megapixels)
        except UnreadableFileError as error:
            return _Photograph(row, torch.empty(0), Frame(0, 0, turned=False), str(error))
        prepared = prepare(pixels, self._input_size, self._preprocess)
        return _Photograph(row, torch.from_numpy(np.ascontiguousarray(prepared.transpose(2, 0, 1))), frame)


def _checked(image: NDArray[np.uint8], row: int) -> NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UnreadableFileError(
            f"{_called(image, row)} is an array of {image.dtype} and shape {image.shape}; expected uint8 and "
            "(H, W, 3), RGB"
        )
    return image


def _called(image: Photograph, row: int) -> str:
    return f"image {row}" if isinstance(image, np.ndarray) else image


class _Clock:
    """Wall time of work on a device, which a GPU only queues."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = self._now()

    def seconds(self) -> float:
        return self._now() - self._started

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _device(name: Device) -> torch.device:
    if name not in get_args(Device):
        raise SkinsegError(f"device={name}: expected one of {', '.join(get_args(Device))}.")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    if not there[name]:
        raise SkinsegError(f"device={name}: PyTorch finds none here. Take device=auto or device=cpu.")
    return torch.device(name)
