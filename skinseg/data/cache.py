"""Images decoded and resized once, in files that all workers, ranks and jobs of a sweep map into memory.

Decoding and resizing a photograph takes longer than all else that is done to it before it reaches the
network, and gives the same pixels in every epoch of every run. A cache is a folder of its own for each list
of files and input size; it never changes once it is whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skinseg.counting import counted
from skinseg.data.inputs import InputFiles
from skinseg.data.photographs import UnreadableFileError
from skinseg.data.transforms.changes import Preprocessing
from skinseg.errors import SkinsegError
from skinseg.run.writing import replacing

log = logging.getLogger(__name__)

Mode = Literal["memmap", "ram", "none"]
"""Where decoded images are kept: in files, in each process's memory, nowhere."""

Check = Literal["stat", "content"]
"""How a changed image file is noticed: by size and time of change, or by reading all of it."""

VERSION = 2
"""Of the files' layout and of how their pixels are made: opening, resizing and our own preprocessing."""

_SPOT_CHECKS = 32
_CHANNELS = 3


@dataclass(frozen=True)
class Layout:
    """Where the rows of a cache lie.

    Attributes:
        rows: Number of images.
        image_size: Height and width in pixels.
    """

    rows: int
    image_size: tuple[int, int]

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """Shape of all images: (rows, height, width, 3)."""
        return (self.rows, *self.image_size, _CHANNELS)

    @property
    def mask_shape(self) -> tuple[int, int, int]:
        """Shape of all masks: (rows, height, width)."""
        return (self.rows, *self.image_size)

    @property
    def pixels(self) -> int:
        """Pixels of one image."""
        return self.image_size[0] * self.image_size[1]

    @property
    def bytes(self) -> int:
        """Size of images, masks and checksums."""
        return self.rows * (self.pixels * (_CHANNELS + 1) + 4)


class Pixels:
    """Images and masks at the network's input size, by image id.

    Args:
        image_ids: The id of each row's image.
        layout: Shapes.
        folder: Folder of the files, which are mapped when they are first needed, in each process for itself.
            None: `images` and `masks` are given.
        images: uint8 tensor of shape (rows, height, width, 3), RGB.
        masks: uint8 tensor of shape (rows, height, width), 0 or 1.
    """

    def __init__(
        self,
        image_ids: Sequence[str],
        layout: Layout,
        *,
        folder: Path | None = None,
        images: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> None:
        self._row_of = {image_id: row for row, image_id in enumerate(image_ids)}
        self.layout = layout
        self.folder = folder
        self._images = images
        self._masks = masks

    def rows_of(self, image_ids: Sequence[str]) -> NDArray[np.int64]:
        """Returns the rows of images.

        Raises:
            KeyError: One of them is not there.
        """
        return np.array([self._row_of[image_id] for image_id in image_ids], dtype=np.int64)

    def __getitem__(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Returns copies of an image (height, width, 3) and its mask (height, width)."""
        return self.images[row].numpy().copy(), self.masks[row].numpy().copy()

    def take(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Returns copies of images (n, 3, height, width), channels last in memory, and masks (n, 1, ...)."""
        index = torch.from_numpy(rows)
        images, masks = (pixels.index_select(0, index) for pixels in (self.images, self.masks))
        return images.permute(0, 3, 1, 2), masks[:, None]

    @property
    def images(self) -> Tensor:
        """uint8 tensor of shape (rows, height, width, 3), RGB; to be read only."""
        if self._images is None:
            self._images = self._mapped("images.u8", self.layout.image_shape)
        return self._images

    @property
    def masks(self) -> Tensor:
        """uint8 tensor of shape (rows, height, width), 0 or 1."""
        if self._masks is None:
            self._masks = self._mapped("masks.u8", self.layout.mask_shape)
        return self._masks

    def _mapped(self, name: str, shape: tuple[int, ...]) -> Tensor:
        assert self.folder is not None
        # torch.from_file would count as memory that may be written to, of which there may be too little.
        array = np.memmap(self.folder / name, dtype=np.uint8, mode="r", shape=shape)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(array)

    def __getstate__(self) -> dict[str, Any]:
        """A process that gets a copy maps the files itself; mapped pixels would be sent by value."""
        state = dict(self.__dict__)
        if self.folder is not None:
            state.update(_images=None, _masks=None)
        return state


def pixels_in_memory(
    files: Sequence[InputFiles],
    image_size: tuple[int, int],
    *,
    limit_gb: float,
    preprocess: Preprocessing | None = None,
) -> Pixels:
    """Decodes all images into this process's memory.

    Args:
        files: The images.
        image_size: Height and width of the network's input, in pixels.
        limit_gb: Most gigabytes (10^9 bytes) that it may take.
        preprocess: What is done to the decoded images. None: nothing.

    Returns:
        The pixels.

    Raises:
        SkinsegError: It would take more, or a file cannot be decoded.
    """
    layout = Layout(len(files), image_size)
    _check_limit(layout, limit_gb)
    images = torch.empty(layout.image_shape, dtype=torch.uint8)
    masks = torch.empty(layout.mask_shape, dtype=torch.uint8)

    def fill(row: int) -> None:
        image, mask, _ = files[row].read(image_size, preprocess)
        images[row], masks[row] = torch.from_numpy(image), torch.from_numpy(mask)

    _run(fill, range(len(files)), f"Decoding {counted(len(files), 'image')} into memory")
    return Pixels([file.image_id for file in files], layout, images=images, masks=masks)


def mapped_pixels(
    files: Sequence[InputFiles],
    image_size: tuple[int, int],
    *,
    folder: Path,
    name: str,
    limit_gb: float,
    check: Check = "stat",
    preprocess: Preprocessing | None = None,
) -> Pixels:
    """Opens the cache of a list of images; makes it first where it is not there or not whole.

    Several processes may ask for the same cache at once: one makes it while the others wait. What a killed
    process left is gone on with.

    Args:
        files: The images.
        image_size: Height and width of the network's input, in pixels.
        folder: Where caches are kept.
        name: Begins the name of the cache's folder, for people.
        limit_gb: Most gigabytes (10^9 bytes) that it may take.
        check: How changed files are noticed.
        preprocess: What is done to the decoded images. None: nothing.

    Returns:
        The pixels, mapped.

    Raises:
        SkinsegError: A file is missing or cannot be decoded; the folder cannot be written; the disk is full
            or the limit would be passed.
    """
    layout = Layout(len(files), image_size)
    height, width = image_size
    fingerprint = _fingerprint(files, image_size, check, preprocess)
    # The name of a data set is a user's where the reader is.
    prefix = re.sub(r"[^\w-]+", "-", name)[:60]
    store = _Store(folder / f"{prefix}_{width}x{height}_{fingerprint}", layout, preprocess)
    if not store.is_whole():
        _check_limit(layout, limit_gb)
        with _writing(folder, layout), _locked(store.folder):
            if not store.is_whole():
                store.fill(files)
    log.info("Decoded images: %s (%.2f GB)", store.folder, layout.bytes / 1e9)
    pixels = Pixels([file.image_id for file in files], layout, folder=store.folder)
    # Mapped here, since warnings cannot be silenced in the thread that reads ahead.
    assert pixels.images.shape[:3] == pixels.masks.shape
    return pixels


class _Store:
    """The files of a cache: images, masks, and a checksum of each row that is done (0: not done)."""

    def __init__(self, folder: Path, layout: Layout, preprocess: Preprocessing | None) -> None:
        self.folder = folder
        self.layout = layout
        self._preprocess = preprocess
        self._strides = {"images.u8": layout.pixels * _CHANNELS, "masks.u8": layout.pixels, "rows.crc32": 4}

    def is_whole(self) -> bool:
        """Whether every row is done; some are read to see whether they are what was written."""
        with suppress(OSError):
            sums = self._sums()
            if sums is not None and sums.all():
                spots = np.unique(np.linspace(0, self.layout.rows - 1, _SPOT_CHECKS).astype(int))
                return all(self._sum_of(row) == sums[row] for row in spots.tolist())
        return False

    def _sums(self) -> NDArray[np.uint32] | None:
        for name, stride in self._strides.items():
            path = self.folder / name
            if not path.is_file() or path.stat().st_size != stride * self.layout.rows:
                return None
        return np.fromfile(self.folder / "rows.crc32", dtype=np.uint32)

    def _sum_of(self, row: int) -> int:
        sum_ = 0
        for name in ("images.u8", "masks.u8"):
            stride = self._strides[name]
            with (self.folder / name).open("rb", buffering=0) as file:
                sum_ = zlib.crc32(os.pread(file.fileno(), stride, row * stride), sum_)
        return sum_ or 1

    def fill(self, files: Sequence[InputFiles]) -> None:
        """Writes the rows that are not done; the caller holds the lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / "cache.json") as temporary:
            temporary.write_text(json.dumps(self._about(files), indent=1) + "\n", encoding="utf-8")
        handles = {name: os.open(self.folder / name, os.O_RDWR | os.O_CREAT) for name in self._strides}
        try:
            for name, stride in self._strides.items():
                os.truncate(handles[name], stride * self.layout.rows)
            sums = np.fromfile(self.folder / "rows.crc32", dtype=np.uint32)
            done = [row for row in np.flatnonzero(sums).tolist() if self._sum_of(row) == sums[row]]
            missing = np.setdiff1d(np.arange(self.layout.rows), done).tolist()

            def write(row: int) -> None:
                image, mask, _ = files[row].read(self.layout.image_size, self._preprocess)
                content = {"images.u8": image.tobytes(), "masks.u8": mask.tobytes()}
                sum_ = zlib.crc32(content["masks.u8"], zlib.crc32(content["images.u8"])) or 1
                # The checksum last: a row is done only when its pixels are there.
                for name, data in (*content.items(), ("rows.crc32", np.uint32(sum_).tobytes())):
                    _write_all(handles[name], data, row * self._strides[name])

            where = f"in {self.folder}" + (f", {len(done):,} are there already" if done else "")
            size = self.layout.bytes / 1e9
            _run(write, missing, f"Decoding {counted(len(missing), 'image')} once ({size:.2f} GB {where})")
            for handle in handles.values():
                os.fsync(handle)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                # Nobody could go on with it until there is room, which it would take.
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        finally:
            for handle in handles.values():
                os.close(handle)

    def _about(self, files: Sequence[InputFiles]) -> dict[str, object]:
        return {
            "what": "Decoded images of skinseg. May be deleted; it is made again when needed.",
            "version": VERSION,
            "rows": self.layout.rows,
            "image_size": self.layout.image_size,
            "preprocess": None if self._preprocess is None else json.loads(self._preprocess.fingerprint),
            "first": vars(files[0]),
        }


def _write_all(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


def _fingerprint(
    files: Sequence[InputFiles], image_size: tuple[int, int], check: Check, preprocess: Preprocessing | None
) -> str:
    """Names the pixels of a cache by what they are made of."""
    made: list[object] = [VERSION, image_size, check]
    if preprocess is not None:
        made.append(preprocess.fingerprint)
    digest = hashlib.sha256(json.dumps(made).encode())
    for file in files:
        parts: list[object] = [file.image_id]
        for path in (file.image, file.mask):
            try:
                if check == "content":
                    with Path(path).open("rb") as content:
                        parts.append(hashlib.file_digest(content, "sha256").hexdigest())
                else:
                    found = os.stat(path)  # noqa: PTH116 -- tens of thousands of paths are slow to build
                    parts += [path, found.st_size, found.st_mtime_ns]
            except OSError as error:
                raise SkinsegError(f"{path}: {error.strerror or error}. Was the data set moved?") from error
        digest.update(json.dumps(parts).encode())
    return digest.hexdigest()[:12]


def _check_limit(layout: Layout, limit_gb: float) -> None:
    if layout.bytes > limit_gb * 1e9:
        height, width = layout.image_size
        of = f"of {width}x{height}"
        raise SkinsegError(
            f"data.cache: {counted(layout.rows, f'image {of} takes', f'images {of} take')} "
            f"{layout.bytes / 1e9:.2f} GB, more than data.cache_limit_gb={limit_gb:g}. Raise the limit, "
            "lower data.image_size, or set "
            "data.cache=none."
        )


@contextmanager
def _writing(folder: Path, layout: Layout) -> Any:
    """Says what to do where the cache cannot be written."""
    way_out = "Name another folder with data.cache_dir=<folder>, or set data.cache=none."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SkinsegError(
                f"data.cache_dir={folder}: the disk is full; decoded images take "
                f"{layout.bytes / 1e9:.2f} GB there. What was begun is removed. Free space. {way_out}"
            ) from error
        raise SkinsegError(
            f"data.cache_dir={folder} cannot be written: {error.strerror or error}. {way_out}"
        ) from error


@contextmanager
def _locked(folder: Path) -> Any:
    """Lets one process at a time write a cache; the system frees the lock of a killed one."""
    lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        log.info("Another process is decoding the images; waiting for it (%s).", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _run(function: Callable[[int], None], rows: Iterable[int], what: str) -> None:
    """Calls a function for each row in threads, with a bar on a terminal and a line elsewhere.

    Raises:
        SkinsegError: Files cannot be decoded; the first ten of them are named.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not console.is_terminal:
        log.info("%s.", what)
    problems: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [pool.submit(function, row) for row in rows]
        try:
            for future in track(
                as_completed(futures),
                what,
                total=len(futures),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            ):
                try:
                    future.result()
                except UnreadableFileError as error:
                    problems.append(str(error))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if problems:
        shown = [f"  {problem}" for problem in sorted(problems)[:10]]
        more = [f"  and {len(problems) - 10} more"] if len(problems) > 10 else []
        way_out = "Replace the files; data.verify=true finds all of them before any work starts."
        raise SkinsegError(
            "\n".join([f"{counted(len(problems), 'image')} cannot be decoded:", *shown, *more, way_out])
        )
