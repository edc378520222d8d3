"""Which files are photographs: by their ending, and where that says nothing by their content."""

from __future__ import annotations

import mimetypes
import os
import re
from functools import cache
from pathlib import Path

from PIL import Image

try:
    from pillow_heif import register_heif_opener
except ImportError:
    pass
else:
    register_heif_opener()

FORMATS = frozenset(
    {
        "AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "PSD", "QOI",
        "SGI", "SUN", "TGA", "TIFF", "WEBP",
    }
)  # fmt: skip
"""Pillow's names of the formats that are read.

Not among them: icons, textures, fax and film; FITS and the like, whose values are no colours; stubs; and EPS,
for which Pillow runs another program.
"""

_HEIF = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
_UNREAD = frozenset(
    {
        ".dcm", ".dicom", ".ima", ".nii", ".nrrd", ".mha", ".mhd",
        ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".czi", ".lif", ".vsi", ".vms",
        ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mrw", ".nef", ".nrw",
        ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw", ".x3f",
        ".avci", ".jxl", ".jxr", ".wdp", ".pcd", ".xcf",
    }
)  # fmt: skip
"""Endings of medical images, slides, cameras' raw files and other pictures that are not read."""

MASK_ENDINGS = "_segmentation|_mask|_lesion|_pred|_prediction"
"""What stands behind the image id in the name of a mask; part of a pattern in which case does not count."""

PHOTOGRAPH = re.compile(rf"(?!.*({MASK_ENDINGS}|_superpixels)$)(?P<id>.+)", re.IGNORECASE)
"""Names of photographs without their ending: not those of masks, nor of the superpixels of ISIC 2017."""

# Python's own table, which is the same on every machine.
_TYPES = mimetypes.MimeTypes()
_ICONS = frozenset({".ico", ".cur", ".icns"})
# Formats that are known by their first bytes alone.
_MARKED = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "AVIF")


@cache
def readable_formats() -> tuple[str, ...]:
    """Returns those of `FORMATS` that Pillow opens here, for `Image.open(..., formats=...)`.

    Without it Pillow looks at the content alone, and runs another program for an EPS that is called a JPEG.
    """
    Image.init()
    return tuple(sorted(FORMATS & Image.OPEN.keys()))


@cache
def endings(*formats: str) -> frozenset[str]:
    """Returns the endings of files that are read, in small letters with the dot.

    Args:
        *formats: Pillow's names of formats. Without any: all of `FORMATS` that Pillow opens here.
    """
    wanted = formats or FORMATS
    known = Image.registered_extensions()
    return frozenset(ending for ending, name in known.items() if name in wanted)


def is_picture(name: str) -> bool:
    """Whether a file is a photograph by its name, read or not."""
    stem, _, ending = name.rpartition(".")
    ending = f".{ending.lower()}"
    known = endings() | _HEIF | _UNREAD
    return PHOTOGRAPH.fullmatch(stem) is not None and (ending in known or _is_image(name))


def why_not_read(path: Path) -> str | None:
    """Says why a file that looks like a picture is not read.

    Args:
        path: A file with none of `endings`.

    Returns:
        The reason with the way out; None of a file that is no picture.
    """
    ending = path.suffix.lower()
    if not os.path.isfile(path):  # noqa: PTH113 -- Path.is_file raises where a link leads to a closed folder
        return "no file: a link to what is not there or may not be read, or a device"
    if ending in _HEIF:
        return "HEIC is read with the extra heif: pip install 'skinseg[heif]'; or convert it to JPEG"
    if _is_image(path.name) or ending in _UNREAD:
        return f"{ending} is not read; convert it to PNG or JPEG"
    if (found := _content(path)) is not None:
        return f"{found} by its content, but not by its ending; rename it, or convert it to PNG or JPEG"
    return None


def _is_image(name: str) -> bool:
    """Whether a file's ending is registered as one of images; an icon is the system's."""
    kind = _TYPES.guess_type(name)[0] or ""
    return kind.startswith("image/") and Path(name).suffix.lower() not in _ICONS


def _content(path: Path) -> str | None:
    """Returns what a file's first bytes say that it is, None where that is no picture."""
    try:
        with path.open("rb") as file:
            if file.read(132)[128:] == b"DICM":
                return "DICOM"
        with Image.open(path, formats=_MARKED) as picture:
            return picture.format
    except Exception:  # what decoders raise for damaged bytes is of any kind
        return None
