"""One way to open a picture: orientation, modes, limits, and whatever a decoder raises."""

from __future__ import annotations

import io
import random
import re
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from skinseg.data.photographs import (
    MaskFormatError,
    UnreadableFileError,
    read_frame,
    read_image,
    read_mask,
    read_mask_header,
    read_photograph,
)

HEIGHT, WIDTH = 64, 96
ORIENTATIONS = range(1, 9)


def scene(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """Four fields of different colour: no turn and no mirror leaves them where they are."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = 230, 40, 40
    picture[: height // 2, width // 2 :] = 40, 220, 40
    picture[height // 2 :, : width // 2] = 40, 40, 210
    picture[height // 2 :, width // 2 :] = 200, 200, 40
    return picture


def tagged(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def save_as(form: str, path: Path, stored: Image.Image, orientation: int) -> None:
    """Writes a picture with its orientation where that kind of file has it."""
    exif = tagged(orientation)
    xmp = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'
    if form.startswith("tiff"):
        stored.save(path, "TIFF", exif=exif, compression=form.partition("_")[2] or None)
    elif form == "png_exif_last":
        content = io.BytesIO()
        stored.save(content, "PNG")
        end = content.getvalue().rindex(b"IEND") - 4
        data = exif.tobytes().removeprefix(b"Exif\x00\x00")
        path.write_bytes(content.getvalue()[:end] + chunk(b"eXIf", data) + content.getvalue()[end:])
    elif form == "png_xmp":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp, zip=True)
        stored.save(path, "PNG", pnginfo=text)
    elif form == "jpeg_xmp":
        stored.save(path, "JPEG", quality=95, xmp=xmp.encode())
    elif form == "mpo":
        stored.save(path, "MPO", quality=95, exif=exif, save_all=True, append_images=[Image.new("L", (8, 8))])
    else:
        stored.save(path, form.upper(), exif=exif, quality=95)


FORMS = ("jpeg", "jpeg_xmp", "mpo", "png", "png_exif_last", "png_xmp", "tiff", "tiff_tiff_lzw", "webp")


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("form", FORMS)
def test_every_orientation_is_upright_in_pixels_and_size(form: str, orientation: int, tmp_path: Path) -> None:
    """A viewer's picture is what `ImageOps.exif_transpose` makes; the stored one is turned back from it."""
    aside = orientation >= 5
    blank = Image.new("L", (HEIGHT, WIDTH) if aside else (WIDTH, HEIGHT))
    blank.getexif()[ExifTags.Base.Orientation] = orientation
    assert ImageOps.exif_transpose(blank).size == (WIDTH, HEIGHT)
    back = {6: 8, 8: 6}.get(orientation, orientation)
    upright = Image.fromarray(scene())
    upright.getexif()[ExifTags.Base.Orientation] = back
    stored = ImageOps.exif_transpose(upright)
    path = tmp_path / "picture"
    save_as(form, path, Image.fromarray(np.asarray(stored)), orientation)

    pixels, frame = read_photograph(path)
    assert frame == read_frame(path)
    assert frame.size == pixels.shape[:2] == (HEIGHT, WIDTH)
    assert frame.turned == (orientation > 1)
    inside = np.s_[8:24, 8:40], np.s_[8:24, 56:88], np.s_[40:56, 8:40], np.s_[40:56, 56:88]
    for field in inside:
        assert np.abs(pixels[field].mean((0, 1)) - scene()[field].mean((0, 1))).max() < 8


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_jpeg_that_is_decoded_smaller_is_upright_too(orientation: int, tmp_path: Path) -> None:
    back = {6: 8, 8: 6}.get(orientation, orientation)
    upright = Image.fromarray(scene(400, 600))
    upright.getexif()[ExifTags.Base.Orientation] = back
    stored = np.asarray(ImageOps.exif_transpose(upright))
    save_as("jpeg", tmp_path / "a.jpg", Image.fromarray(stored), orientation)
    pixels, frame = read_photograph(tmp_path / "a.jpg", (100, 150))
    assert frame.size == (400, 600)
    assert pixels.shape == (100, 150, 3)
    whole = read_image(tmp_path / "a.jpg")
    assert np.abs(pixels.astype(int) - cv2.resize(whole, (150, 100), interpolation=cv2.INTER_AREA)).max() < 40
    # Sides that suffice upright, but not as the pixels lie.
    assert read_image(tmp_path / "a.jpg", (200, 40)).shape == (200, 300, 3)


@pytest.mark.parametrize("exif", [b"Exif\x00\x00MM\x00*\xff\xff", b"Exif\x00\x00", b"Exif\x00\x00rubbish"])
def test_pixels_beside_broken_metadata_are_as_they_are_stored(exif: bytes, tmp_path: Path) -> None:
    Image.fromarray(scene()).save(tmp_path / "a.jpg", exif=exif)
    pixels, frame = read_photograph(tmp_path / "a.jpg")
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert not frame.turned
    assert read_frame(tmp_path / "a.jpg") == frame


GREY = (np.arange(HEIGHT * WIDTH) % 256).astype(np.uint8).reshape(HEIGHT, WIDTH)
WIDE = GREY.astype(np.uint16) * 257
Write = Callable[[Path], object]


def grey(values: NDArray[np.generic], form: str) -> Write:
    return lambda path: Image.fromarray(values).save(path, form)


def written_by_opencv(values: NDArray[np.generic], ending: str) -> Write:
    def write(path: Path) -> None:
        done, content = cv2.imencode(ending, values)
        assert done
        path.write_bytes(content.tobytes())

    return write


def twelve_bits(path: Path) -> None:
    """A TIFF of 12 bits a pixel, which no library at hand writes."""
    values = (GREY.astype(int) * 4095 // 255).reshape(-1, 2)
    packed = np.stack(
        [values[:, 0] >> 4, (values[:, 0] & 15) << 4 | values[:, 1] >> 8, values[:, 1] & 255], 1
    )
    data = packed.astype(np.uint8).tobytes()
    tags = {256: WIDTH, 257: HEIGHT, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: HEIGHT, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\x00" + struct.pack("<I", 8 + len(data))
    path.write_bytes(header + data + struct.pack("<H", len(tags)) + entries + b"\x00" * 4)


def white_is_zero(path: Path) -> None:
    Image.fromarray(WIDE).save(path, "TIFF")
    content = path.read_bytes()
    entry = struct.pack("<HHI", 262, 3, 1)
    assert entry + b"\x01" in content
    path.write_bytes(content.replace(entry + b"\x01", entry + b"\x00"))


SAME: dict[str, Write] = {
    "8-bit PNG": grey(GREY, "PNG"),
    "16-bit PNG": grey(WIDE, "PNG"),
    "16-bit TIFF": grey(WIDE, "TIFF"),
    "16-bit TIFF, big-endian": lambda path: Image.fromarray(WIDE.astype(">u2")).save(path, "TIFF"),
    "12-bit TIFF": twelve_bits,
    "16-bit JPEG 2000": grey(WIDE, "JPEG2000"),
    "16-bit PGM": written_by_opencv(WIDE, ".pgm"),
    "16-bit colour PNG": written_by_opencv(np.repeat(WIDE[..., None], 3, 2), ".png"),
    "16-bit colour TIFF": written_by_opencv(np.repeat(WIDE[..., None], 3, 2), ".tiff"),
    "floating point TIFF": grey((GREY / 255).astype(np.float32), "TIFF"),
    "floating point PFM": grey((GREY / 255).astype(np.float32), "PPM"),
    "palette PNG": lambda path: Image.fromarray(GREY).convert("P").save(path, "PNG"),
    "GIF": grey(GREY, "GIF"),
    "first of several in a GIF": lambda path: Image.fromarray(GREY).save(
        path, "GIF", save_all=True, append_images=[Image.new("L", (WIDTH, HEIGHT))]
    ),
    "first of several in a TIFF": lambda path: Image.fromarray(GREY).save(
        path, "TIFF", save_all=True, append_images=[Image.new("L", (8, 8))]
    ),
    "opaque PNG with alpha": lambda path: Image.fromarray(GREY).convert("RGBA").save(path, "PNG"),
    "opaque grey PNG with alpha": lambda path: Image.fromarray(GREY).convert("LA").save(path, "PNG"),
    "CMYK TIFF": lambda path: Image.fromarray(GREY).convert("RGB").convert("CMYK").save(path, "TIFF"),
}


@pytest.mark.parametrize("form", SAME)
def test_the_same_picture_in_any_mode_is_the_same(form: str, tmp_path: Path) -> None:
    SAME[form](tmp_path / "picture")
    pixels = read_image(tmp_path / "picture")
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.repeat(GREY[..., None], 3, 2))


def with_alpha(path: Path) -> None:
    picture = Image.fromarray(scene()).convert("RGBA")
    picture.putpixel((3, 5), (1, 2, 3, 0))
    picture.save(path, "PNG")


REFUSED: dict[str, tuple[Write, str]] = {
    "floating point above 1": (grey(GREY.astype(np.float32), "TIFF"), "floating point from 0 to 255"),
    "not a number": (grey(np.full((4, 4), np.nan, np.float32), "TIFF"), "floating point from nan"),
    "32-bit integers": (grey(GREY.astype(np.int32), "TIFF"), "mode I of TIFF, whose white is not known"),
    "16 bits, 0 for white": (white_is_zero, "0 for white"),
    "a transparent pixel": (with_alpha, "transparent"),
    "a transparent colour": (
        lambda path: Image.fromarray(scene()).save(path, "PNG", transparency=(230, 40, 40)), "transparent"
    ),
    "a transparent palette entry": (
        lambda path: Image.fromarray(GREY).convert("P").save(path, "GIF", transparency=7), "transparent"
    ),
    "a program, PostScript": (lambda path: Image.fromarray(scene()).save(path, "EPS"), "not an image"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_what_can_only_be_guessed_is_refused(form: str, tmp_path: Path) -> None:
    write, reason = REFUSED[form]
    write(tmp_path / "picture")
    with pytest.raises(UnreadableFileError, match=f"picture: .*{reason}"):
        read_image(tmp_path / "picture")


def test_a_mask_with_an_orientation_or_of_several_pictures_is_refused(tmp_path: Path) -> None:
    mask = Image.fromarray(np.where(GREY > 128, 255, 0).astype(np.uint8))
    mask.save(tmp_path / "plain.png")
    assert set(np.unique(read_mask(tmp_path / "plain.png"))) == {0, 255}
    mask.save(tmp_path / "turned.png", exif=tagged(3))
    with pytest.raises(MaskFormatError, match="EXIF orientation"):
        read_mask(tmp_path / "turned.png")
    mask.save(tmp_path / "several.tif", save_all=True, append_images=[mask])
    with pytest.raises(MaskFormatError, match="several pictures"):
        read_mask(tmp_path / "several.tif")


def claims(path: Path, width: int, height: int) -> Path:
    """Writes a small JPEG whose header claims other sides."""
    content = io.BytesIO()
    Image.fromarray(scene()).save(content, "JPEG")
    data = bytearray(content.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    path.write_bytes(data)
    return path


READERS: dict[str, Callable[..., object]] = {
    "photograph": read_photograph,
    "frame": read_frame,
    "mask": read_mask,
    "mask header": read_mask_header,
}


@pytest.mark.parametrize("reader", READERS)
def test_what_is_larger_than_allowed_is_unreadable(reader: str, tmp_path: Path) -> None:
    bomb = claims(tmp_path / "bomb.jpg", 60_000, 60_000)
    Image.new("1", (14_000, 13_000)).save(tmp_path / "large.png")
    for path, said in ((bomb, "60000x60000 are 3600"), (tmp_path / "large.png", "14000x13000 are 182")):
        with pytest.raises(UnreadableFileError, match=f"{said} megapixels, more than max_megapixels=120"):
            READERS[reader](path)


def test_a_whole_slide_is_opened_on_purpose(tmp_path: Path) -> None:
    Image.new("1", (20_000, 15_000)).save(tmp_path / "slide.png")
    assert read_frame(tmp_path / "slide.png", max_megapixels=300).size == (15_000, 20_000)
    with pytest.raises(UnreadableFileError, match="max_megapixels=299"):
        read_frame(tmp_path / "slide.png", max_megapixels=299)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "GIF", "JPEG"])
def test_our_limit_decides_and_pillows_is_left_as_it_was(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(scene()).save(tmp_path / "picture", form)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "picture", max_megapixels=1).shape == (HEIGHT, WIDTH, 3)
        with pytest.raises(UnreadableFileError, match=r"max_megapixels=0\.001"):
            read_image(tmp_path / "picture", max_megapixels=0.001)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_png_with_much_text_is_readable(place: str, tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(scene()).save(content, "PNG")
    data = content.getvalue()
    text = b"XML:com.adobe.xmp\x00\x01\x00\x00\x00" + zlib.compress(b"x" * 3_000_000)
    at = data.index(b"IDAT") - 4 if place == "before" else data.rindex(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(data[:at] + chunk(b"iTXt", text) + data[at:])
    assert np.array_equal(read_image(tmp_path / "a.png"), scene())
    assert read_frame(tmp_path / "a.png").size == (HEIGHT, WIDTH)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "error",
    [
        OSError("x"), SyntaxError("x"), ValueError("x"), struct.error("x"), EOFError("x"), MemoryError(),
        OverflowError("x"), zlib.error("x"), IndexError("x"), KeyError("x"), AttributeError("x"),
        TypeError("x"), ZeroDivisionError("x"), RecursionError("x"), NotImplementedError("x"),
        AssertionError("x"), UnicodeDecodeError("utf-8", b"", 0, 1, "x"), Image.DecompressionBombError("x"),
        Image.DecompressionBombWarning("x"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_a_decoder_raises_the_file_is_unreadable(
    error: Exception, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UnreadableFileError, match=r"a\.png: \S"):
        READERS[reader](tmp_path / "a.png")


@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_there_or_empty_is_said(reader: str, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    said = {
        "absent": "no such file", "folder": "no such file", "empty": "empty file", "text": "not an image (8"
    }  # fmt: skip
    for name, reason in said.items():
        with pytest.raises(UnreadableFileError, match=re.escape(f"{name}.png: {reason}")):
            READERS[reader](tmp_path / f"{name}.png")


def test_nothing_else_opens_pictures() -> None:
    """Another way to open a file would know nothing of orientation, modes and limits."""
    other = re.compile(
        r"Image\.open\(|cv2\.imread|UnidentifiedImageError|\bimread\(|decode_image\(|read_file\("
    )
    for path in (REPOSITORY / "skinseg").rglob("*.py"):
        if path.name not in ("photographs.py", "kinds.py"):  # which asks a file for its format alone
            assert not other.search(path.read_text(encoding="utf-8")), path


def seeds() -> list[tuple[str, bytes]]:
    """Small whole files of each format and of its main ways to store pixels."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8))
    exif = tagged(6)
    ways: list[tuple[str, str, dict[str, object]]] = [
        ("JPEG", "RGB", {"exif": exif}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {"exif": exif}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "RGBA", {}),
        ("PNG", "1", {}),
        ("BMP", "RGB", {}),
        ("BMP", "P", {}),
        ("GIF", "P", {"save_all": True, "append_images": [picture.convert("P")]}),
        ("WEBP", "RGB", {"exif": exif}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("TIFF", "RGB", {"exif": exif}),
        ("TIFF", "1", {"compression": "group4"}),
        ("TIFF", "F", {}),
        *[
            ("TIFF", "RGB", {"compression": way})
            for way in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
        ],
    ]
    made = []
    for form, mode, options in ways:
        content = io.BytesIO()
        picture.convert(mode).save(content, form, **options)  # type: ignore[arg-type]
        made.append((f"{form} {mode} {options}", content.getvalue()))
    return made


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Changes, drops, repeats and cuts off bytes, the header's more often than the body's."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(min(64, len(data)) if draw.random() < 0.5 else len(data))
        data[at] = draw.choice((0, 1, 127, 255, draw.randrange(256), data[at] ^ 1 << draw.randrange(8)))
    how, at = draw.random(), draw.randrange(len(data))
    if how < 0.25:
        del data[at:]
    elif how < 0.35:
        del data[at : at + draw.choice((1, 2, 8, 200))]
    elif how < 0.45:
        data[at:at] = data[at : at + draw.choice((1, 4, 100))]
    return bytes(data)


def fuzz(seconds: float, path: Path, seed: int) -> dict[str, int]:
    """Opens damaged files in every way; returns how many opened and how many were unreadable."""
    draw, whole = random.Random(seed), seeds()
    found = {"opened": 0, "unreadable": 0}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        name, content = draw.choice(whole)
        data = damaged(content, draw)
        path.write_bytes(data)
        for reader in (*READERS.values(), lambda path: read_photograph(path, (5, 7))):
            try:
                reader(path)
                found["opened"] += 1
            except UnreadableFileError:
                found["unreadable"] += 1
            except BaseException as error:
                raise AssertionError(f"{name}: {data.hex()}") from error
    return found


@pytest.mark.parametrize("seconds", [1.5, pytest.param(60, marks=pytest.mark.slow)])
def test_damaged_files_open_or_are_unreadable_and_nothing_is_printed(
    seconds: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of libtiff's own lines nothing is said here: they go past Python, which cannot hold them back."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = fuzz(seconds, tmp_path / "picture", seed=int(seconds))
    assert min(found.values()) > 50, found
    assert not "".join(capsys.readouterr())
    assert {Path(warning.filename).parent.name for warning in told} <= {"PIL"}, "which are silenced"
