"""Opening a photograph or a mask: size, pixels, orientation and mode, and what counts as unreadable.

Every command opens pictures here and nowhere else, so that inspection, training and prediction see the same.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from skinseg.data.kinds import readable_formats

DEFAULT_MAX_MEGAPIXELS = 120.0
"""Above what the cameras of telephones and dermoscopes take; a whole slide is opened on purpose only."""

# A megabyte of compressed text, such as XMP, is no attack; Pillow's cap on all text of a file (64 MB) stays.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)

# Of a damaged file our own message is enough.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)

# Held while Pillow's own limit of pixels is lifted, which is one for the whole process.
_LIFTED = threading.Lock()

_TURNS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""What makes stored pixels upright, by EXIF orientation."""

_LIES_ON_ITS_SIDE = 5
"""From this orientation on height and width change places."""

_MODES_OF_A_MASK = ("L", "P", "1")


class UnreadableFileError(Exception):
    """A file that cannot be decoded, or whose pixels could only be guessed at."""


class MaskFormatError(UnreadableFileError):
    """A mask in a form that would be misread."""


@dataclass(frozen=True)
class Frame:
    """How a photograph is seen.

    Attributes:
        height: Height of the upright picture in pixels.
        width: Width of the upright picture in pixels.
        turned: Whether its pixels are stored turned or mirrored, with an orientation that says so.
    """

    height: int
    width: int
    turned: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width


def read_frame(path: Path | str, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS) -> Frame:
    """Reads a photograph's size and orientation without decoding its pixels.

    Args:
        path: As in `read_photograph`.
        max_megapixels: As there.

    Raises:
        UnreadableFileError: The file is missing, empty, no image, or larger than allowed.
    """
    with _opened(path, max_megapixels) as image:
        # Metadata of a PNG may stand behind its pixels, and Pillow would decode all of them to see.
        if image.format == "PNG" and "exif" not in image.info and not _may_say_orientation(path):
            return Frame(image.height, image.width, turned=False)
        return _frame(image, _orientation(image))


def read_photograph(
    path: Path | str,
    at_least: tuple[int, int] | None = None,
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
) -> tuple[NDArray[np.uint8], Frame]:
    """Decodes a photograph as RGB, upright as every viewer shows it.

    An orientation of EXIF or XMP is applied. 16-bit grey is scaled by the range of its type, floating point
    by 0 to 1. Of a file of several pictures (GIF, TIFF, the MPO of telephones) the first one is taken. Colour
    profiles are not applied.

    Args:
        path: A file in any format that Pillow knows.
        at_least: Height and width, upright, that suffice: a JPEG several times larger is decoded at a half,
            a quarter or an eighth, which costs as much less.
        max_megapixels: Most millions of pixels; a file may claim more than memory holds.

    Returns:
        uint8 array of shape (height, width, 3), and the frame at full size.

    Raises:
        UnreadableFileError: The file is missing, empty, damaged, no image or larger than allowed; or nobody
            can tell what it shows: transparent pixels, floating point outside 0 to 1, 32-bit integers.
    """
    with _opened(path, max_megapixels) as image:
        if image.format == "PNG":
            image.load()  # also what stands behind the pixels
        orientation = _orientation(image)
        frame = _frame(image, orientation)
        drafted = None
        if at_least is not None:
            height, width = at_least[::-1] if orientation >= _LIES_ON_ITS_SIDE else at_least
            drafted = image.draft("RGB", (width, height))
        image.load()
        pixels = _as_rgb(image)
        if image.format != "TIFF" and orientation in _TURNS:  # Pillow turns a TIFF itself
            pixels = np.ascontiguousarray(_TURNS[orientation](pixels))
        if drafted is None and pixels.shape[:2] != frame.size:
            found = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise ValueError(f"damaged: its header says {frame.width}x{frame.height}, its pixels are {found}")
    return pixels, frame


def read_image(
    path: Path | str,
    at_least: tuple[int, int] | None = None,
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
) -> NDArray[np.uint8]:
    """Returns the pixels alone of `read_photograph`."""
    return read_photograph(path, at_least, max_megapixels)[0]


def read_mask(path: Path | str, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS) -> NDArray[np.uint8]:
    """Decodes a lesion mask, strictly.

    A mask of 0 and 1, of 16 bits or in colour is refused rather than guessed at: the ISIC Challenge's
    scorer takes values above 128 for lesion and would read the first as empty. So is one with an EXIF
    orientation, which viewers apply and the scorer does not, and a file of several masks.

    Args:
        path: An 8-bit grey ("L"), palette ("P") or 1-bit PNG.
        max_megapixels: Most millions of pixels.

    Returns:
        Array of shape (height, width) that holds 0 (skin) and 255 (lesion) only.

    Raises:
        UnreadableFileError: The file cannot be decoded, or is larger than allowed.
        MaskFormatError: It is an image, but not such a mask.
    """
    with _opened(path, max_megapixels) as image:
        mode = image.mode
        several = bool(getattr(image, "is_animated", False))
        mask = np.array(image.convert("L")) if mode in _MODES_OF_A_MASK else None
        turned = _orientation(image) in _TURNS
    if mask is None:
        raise MaskFormatError(f"{path}: mode {mode}, expected 8-bit grey (L) or palette (P)")
    if several:
        raise MaskFormatError(f"{path}: several pictures in one file, expected one mask")
    if turned:
        raise MaskFormatError(f"{path}: an EXIF orientation, expected a mask stored upright without one")
    # bincount is 20 times as fast as np.unique on a mask.
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    if not np.isin(values, (0, 255)).all():
        shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
        raise MaskFormatError(f"{path}: values {shown}, expected 0 (skin) and 255 (lesion)")
    return mask


def read_values(
    path: Path | str, *, colour: bool, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS
) -> NDArray[np.integer[Any]]:
    """Decodes what a picture holds that is a mask in a form of its own.

    Args:
        path: A file in any format that is read.
        colour: Whether red, green and blue are wanted; else grey values, or the indices of a palette.
        max_megapixels: Most millions of pixels.

    Returns:
        uint8 array of shape (height, width, 3), or of integers of shape (height, width).

    Raises:
        UnreadableFileError: The file cannot be decoded, or is larger than allowed.
        MaskFormatError: It holds several pictures, says that it is turned, or is coloured and grey is wanted.
    """
    with _opened(path, max_megapixels) as image:
        several = bool(getattr(image, "is_animated", False))
        turned = _orientation(image) in _TURNS
        grey = image.mode in (*_MODES_OF_A_MASK, "I", "I;16", "I;16B", "I;16L")
        values = np.array(image.convert("L") if image.mode == "1" else image) if grey and not colour else None
        if values is None:
            values = np.array(image.convert("RGB"))
    if several:
        raise MaskFormatError(f"{path}: several pictures in one file, expected one mask")
    if turned:
        raise MaskFormatError(f"{path}: an EXIF orientation, expected a mask stored upright without one")
    if colour or values.ndim == 2:
        return values
    if (values != values[..., :1]).any():
        raise MaskFormatError(f"{path}: coloured; name the lesion's colour: data.lesion_value=[255,0,0]")
    return np.asarray(values[..., 0])


def read_mask_header(
    path: Path | str, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS
) -> tuple[str, tuple[int, int]]:
    """Reads Pillow's mode, and height and width in pixels, of a mask as it is stored.

    Raises:
        UnreadableFileError: The file is missing, empty, no image, or larger than allowed.
    """
    with _opened(path, max_megapixels) as image:
        return image.mode, (image.height, image.width)


def verify_png(path: Path | str, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS) -> None:
    """Checks what a decoder leaves out: the checksums of a PNG, and that it ends where it should.

    Raises:
        UnreadableFileError: One is wrong, or the file is no image or larger than allowed.
    """
    with _opened(path, max_megapixels) as image:
        image.verify()


@contextmanager
def _opened(path: Path | str, max_megapixels: float) -> Iterator[Image.Image]:
    """Opens a picture; whatever goes wrong until it is closed makes the file unreadable.

    Pillow's plug-ins raise almost anything for damaged bytes: OSError, SyntaxError, ValueError, struct.error,
    KeyError, OverflowError, zlib.error, MemoryError, ...
    """
    try:
        with ExitStack() as stack:
            try:
                image: Image.Image = stack.enter_context(Image.open(path, formats=readable_formats()))
            except Image.DecompressionBombError:
                # Pillow has a limit of its own; ours decides, also where it is the larger one.
                stack.enter_context(_without_pillows_limit())
                image = stack.enter_context(Image.open(path, formats=readable_formats()))
            megapixels = image.width * image.height / 1e6
            if megapixels > max_megapixels:
                raise ValueError(
                    f"{image.width}x{image.height} are {megapixels:.4g} megapixels, more than "
                    f"max_megapixels={max_megapixels:g} (of a data set data.max_megapixels); raise it if the "
                    "picture is really that large"
                )
            if not megapixels:
                raise ValueError(f"{image.width}x{image.height} pixels")
            yield image
    except Exception as error:
        raise UnreadableFileError(f"{path}: {_reason(Path(path), error)}") from error


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    with _LIFTED:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _reason(path: Path, error: Exception) -> str:
    try:
        if not path.is_file():
            return "no such file"
        size = path.stat().st_size
    except OSError as unseen:
        return unseen.strerror or str(unseen)
    if size == 0:
        return "empty file (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image ({size} bytes)"
    if isinstance(error, MemoryError):
        return "larger than this machine's memory"
    if isinstance(error, (OSError, SyntaxError, ValueError)) and str(error):
        return str(error)
    return f"damaged ({type(error).__name__}: {error})"


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 2 to 8; 1 where there is none that says something."""
    try:
        orientation: Any = image.getexif().get(ExifTags.Base.Orientation)
        return int(orientation) if orientation in _TURNS else 1
    except Exception:  # broken metadata raise errors of any kind; viewers then show pixels as they are stored
        return 1


def _may_say_orientation(path: Path | str) -> bool:
    """Whether one of the places where a PNG has an orientation is in the file."""
    content = Path(path).read_bytes()
    return any(word in content for word in (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp"))


def _frame(image: Image.Image, orientation: int) -> Frame:
    # Of a TIFF Pillow says the upright size, before and after decoding.
    aside = orientation >= _LIES_ON_ITS_SIDE and image.format != "TIFF"
    height, width = (image.width, image.height) if aside else (image.height, image.width)
    return Frame(height, width, orientation in _TURNS)


def _as_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Returns decoded pixels as uint8 of shape (height, width, 3).

    Raises:
        ValueError: What they mean is not in the file.
    """
    if image.mode[0] in "IF":
        return np.repeat(_as_bytes(image)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise ValueError("pixels are transparent, and what is to be seen there is not in the file")
    return np.array(image.convert("RGB"))


def _as_bytes(image: Image.Image) -> NDArray[np.uint8]:
    """Scales grey of 16 bits or floating point to 8 bits."""
    pixels = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:
        raise ValueError(f"mode {image.mode} with 0 for white, expected 0 for black")
    if image.mode == "F":
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError(f"floating point from {pixels.min():g} to {pixels.max():g}, expected 0 to 1")
        return np.asarray(np.round(pixels * 255), dtype=np.uint8)
    # Pillow scales the grey of a PGM and of JPEG 2000 to 16 bits; of a TIFF 12 bits stay 12.
    known = ("PNG", "TIFF", "JPEG2000") if image.mode.startswith("I;16") else ("PPM",)
    if image.format not in known:
        raise ValueError(
            f"mode {image.mode} of {image.format}, whose white is not known; expected 8 or 16 bits"
        )
    bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]
    # The upper eight bits, as Pillow takes them of 16-bit colour.
    return np.asarray(pixels >> (bits - 8), dtype=np.uint8)
