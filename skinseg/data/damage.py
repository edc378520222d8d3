"""Damage that decodes: files whose decoder notices that something is wrong, and goes on."""

from __future__ import annotations

from pathlib import Path

import simplejpeg

from skinseg.data.photographs import DEFAULT_MAX_MEGAPIXELS, UnreadableFileError, verify_png

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG"
# What libjpeg calls data that it filled up, skipped or could not read.
_WARNINGS = ("Corrupt JPEG data", "Premature end of JPEG file")


def damage(path: Path | str, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS) -> str | None:
    """Asks the decoder of a readable file whether all of its data are sound.

    Of a JPEG that was cut short, overwritten or put together from parts libjpeg makes a picture all the same,
    grey or shifted where data are missing, and only warns; Pillow does not hand the warning on. Of a PNG
    Pillow leaves checksums and the end of the file out. Other formats say nothing.

    Args:
        path: The file.
        max_megapixels: Most millions of pixels.

    Returns:
        The decoder's words. None where it has nothing to say, or cannot read the file at all.
    """
    content = Path(path).read_bytes()
    if content.startswith(_JPEG):
        try:
            # All data are read for a picture of an eighth too, which is the fastest.
            simplejpeg.decode_jpeg(content, strict=True, min_height=1, min_width=1, min_factor=8)
        except ValueError as error:
            return str(error) if str(error).startswith(_WARNINGS) else None
    elif content.startswith(_PNG):
        try:
            verify_png(path, max_megapixels)
        except UnreadableFileError as error:
            return str(error.__cause__)
    return None
