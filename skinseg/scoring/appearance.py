"""What a photograph looks like that may make its lesion hard to outline, measured from image and truth.

What depends on scale is computed at a fixed one, so that a picture gives nearly the same values whatever its
size on disk. Of 64 photographs of HAM10000 at 600x450 and at 200x150, lesion_share differs by at most 0.05 %,
contrast by 0.5 L*, ita by 2 degrees and hair by 1.9 % (median 0). None is calibrated: they rank the
photographs of a data set and cut it into strata.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

APPEARANCE = ("lesion_share", "touches_border", "contrast", "hair", "ita")

# Lightness needs no more; most photographs are several times larger.
_SIDE = 256
# The skin that a lesion is compared with: a ring as wide as this share of the frame's diagonal.
_RING = 0.1
# Where the colour of skin is asked for the ring begins this far from the lesion, whose halo it would be.
_MARGIN = 0.02

# Hair is looked for at one scale, at which a strand of a 600x450 photograph is 1 to 2 pixels wide. Smaller
# images are enlarged: on 200x150 ones the filter would otherwise see another width of strand.
_HAIR_SIDE = 200
# Line elements, in pixels of that scale. Across a strand the shorter closing bridges it; along it the longer
# one does not, while dots and the meshes of a pigment network are bridged by both.
_ACROSS = 7
_ALONG = 17
_STRAIGHT = 11
_DIRECTIONS = 8
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)
# How much darker than its surroundings, as share of the brightness of those or of the typical pixel.
_DARKER = 0.08
# A strand's least extent, in pixels, and the least share of its pixels that lies on straight pieces.
_STRAND = 12
_STRAIGHT_SHARE = 0.5

# Skin darker than this share of the bright skin nearby is the frame of the optics or its shade.
_SHADE = 0.6
# A pixel all of whose channels are brighter is a reflection or overexposed: its colour is lost.
_GLARE = 250
# An angle of fewer pixels, as share of the frame, says nothing.
_LEAST_SKIN = 0.005

_GREYS = np.arange(256) / 255
# The transfer function of sRGB (IEC 61966-2-1), and its Y and Z, relative to the white of D65.
_LINEAR = np.where(_GREYS <= 0.04045, _GREYS / 12.92, ((_GREYS + 0.055) / 1.055) ** 2.4)
_TO_YZ = np.array([[0.2126729, 0.0193339], [0.7151522, 0.1191920], [0.0721750, 0.9503041]]) / (1, 1.08883)


def appearance(image: NDArray[np.uint8], truth: NDArray[np.bool_]) -> dict[str, float]:
    """Measures one photograph and its lesion.

    Args:
        image: RGB, shape (H, W, 3), 0 to 255.
        truth: Where the lesion is, shape (H, W).

    Returns:
        The names of `APPEARANCE`, in their order, to:

        - lesion_share: lesion, in % of the frame, 0 to 100.
        - touches_border: 1 if the lesion reaches the outermost pixels of the frame, else 0.
        - contrast: see `contrast`; NaN where there is no lesion or no skin.
        - hair: see `hair_mask`, in % of the frame, 0 to 100.
        - ita: see `typology_angle`, in degrees, -90 to 270; NaN where there is no lesion or too little skin.

    Raises:
        ValueError: The image is not (H, W, 3), the truth not (H, W), or there are no pixels.
        TypeError: The image is not uint8 or the truth not bool.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.shape[:2] != truth.shape or truth.size == 0:
        raise ValueError(
            f"The image has the shape {image.shape} and the truth {truth.shape}; "
            "expected (H, W, 3) and (H, W) with pixels."
        )
    if image.dtype != np.uint8 or truth.dtype != np.bool_:
        raise TypeError(f"The image is {image.dtype} and the truth {truth.dtype}; expected uint8 and bool.")
    small = _resize(image, _HAIR_SIDE)
    hair = hair_mask(small)
    edge = (truth[0], truth[-1], truth[:, 0], truth[:, -1])
    return {
        "lesion_share": 100 * float(truth.mean()),
        "touches_border": float(any(side.any() for side in edge)),
        "contrast": contrast(image, truth),
        "hair": 100 * float(hair.mean()),
        "ita": typology_angle(small, _fit(truth, small.shape[:2]), hair),
    }


def contrast(image: NDArray[np.uint8], lesion: NDArray[np.bool_]) -> float:
    """How much darker a lesion is than the skin around it.

    Args:
        image: RGB, shape (H, W, 3).
        lesion: A mask of the image's proportions; it may be of another size.

    Returns:
        Mean lightness of the ring of skin around the lesion, a tenth of the frame's diagonal wide, minus that
        of the lesion, in CIE L*, -100 to 100. Negative where the lesion is lighter. NaN without a lesion or a
        ring.
    """
    small = _resize(image, _SIDE) if max(image.shape[:2]) > _SIDE else image
    lab = cv2.cvtColor(small.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB)
    lightness = np.asarray(lab, dtype=np.float32)[..., 0]
    inside = _fit(lesion, small.shape[:2])
    ring = ~inside & (_away(inside) <= _RING * np.hypot(*inside.shape))
    if not inside.any() or not ring.any():
        return float("nan")
    return float(lightness[ring].mean() - lightness[inside].mean())


def hair_mask(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Finds dark strands, in the way of DullRazor.

    DullRazor (Lee, Ng, Gallagher, Coldman, McLean, Comput Biol Med 1997, doi:10.1016/S0010-4825(97)00020-6)
    closes the image with line elements of several directions and takes for hair what that brightens, if
    it is long and thin. Here the difference is that between the closings across and along the strand, in the
    red channel alone, in which vessels and much of the pigment network are faint.

    It is a proxy. 240 random photographs of HAM10000 at 200x150 were labelled by eye by one observer, no
    dermatologist, before they were measured: 34 with several dark strands, 169 with none, 37 with one or a
    doubtful one. The area under the ROC curve of `hair`, several against none, is 0.97, against all others
    0.96. The constants were chosen on 180 of them (30 against 121: 0.96); on the last 60 (4 against 48) it
    is 0.995. Of the 34, 3 are below 0.5 %, two of which have fine hairs and about 0; of the 169, 15 are not.

    What else it marks: ruler marks, strokes of a pen, the rim of the optics, the furrows and ridges of acral
    skin, crusts (one of the 16 highest of 1698 is a crusted lesion without hair), coarse pigment network,
    cracks and edges within nearly black lesions. What it misses: fair hair, down, fine hair, hair upon a
    lesion as dark as itself, and stubble shorter than a sixteenth of the frame.

    Args:
        image: RGB, shape (H, W, 3). The lengths are those of images of 200 pixels on the longest side.

    Returns:
        bool, shape (H, W): True on strands.
    """
    # Dark corners that run out of the frame would be thin lines along it.
    rim = _ALONG
    red = _u8(cv2.copyMakeBorder(image[..., 0], rim, rim, rim, rim, cv2.BORDER_REPLICATE))
    across = _closings(red, _ACROSS).max(axis=0)
    # A strand one pixel wide is a staircase in which no long element fits; widened it is none.
    along = np.maximum(_closings(_u8(cv2.erode(red, _CROSS)), _ALONG).min(axis=0), red)
    inner = (slice(rim, -rim), slice(rim, -rim))
    around = across[inner].astype(np.float32)
    # Relative, so that exposure does not matter; but not to the dark alone, where noise would be a strand.
    least = np.float32(_DARKER) * np.maximum(around, np.median(around))
    thin = (around - along[inner] > np.maximum(least, 1)).astype(np.uint8)
    straight = np.zeros_like(thin)
    for element in _lines(_STRAIGHT):
        straight |= _u8(cv2.morphologyEx(thin, cv2.MORPH_OPEN, element))
    count, strand, stats, _ = cv2.connectedComponentsWithStats(thin, connectivity=8)
    extent = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    share = np.bincount(strand[straight > 0], minlength=count) / stats[:, cv2.CC_STAT_AREA].clip(1)
    kept = (extent >= _STRAND) & (share >= _STRAIGHT_SHARE)
    kept[0] = False
    return np.asarray(kept[strand], dtype=np.bool_)


def typology_angle(image: NDArray[np.uint8], lesion: NDArray[np.bool_], hair: NDArray[np.bool_]) -> float:
    """The individual typology angle of the skin around a lesion, as the photograph shows it.

    arctan((L* - 50) / b*) in degrees (Chardon, Cretois, Hourseau, Int J Cosmet Sci 1991,
    doi:10.1111/j.1467-2494.1991.tb00561.x) of the median L* and b* of the skin.

    It is no skin type, Fitzpatrick's or any other. Chardon's L* and b* are a colorimeter's; those of a
    dermoscopic photograph depend on lamp, polarization, exposure and white balance as well. In HAM10000 38 %
    of the photographs show skin that is bluer than grey, which no skin is, and the lowest angles are of
    reddish photographs of light skin. So it groups photographs by colour rendering as much as by skin, and
    compares those of one device at best. Kinyanjui et al. (MICCAI 2020, doi:10.1007/978-3-030-59725-2_31)
    estimated the skin tones of ISIC images by it; Groh et al. (Proc ACM Hum-Comput Interact 2022,
    doi:10.1145/3555634) found it to agree less with experts than crowds do; Kalb et al. (2023,
    arXiv:2308.09640) found four such estimates on ISIC 2018 to disagree widely.

    Args:
        image: RGB, shape (H, W, 3).
        lesion: Shape (H, W).
        hair: Left out, with the pixels next to it; shape (H, W).

    Returns:
        Degrees, -90 to 270; lighter skin is higher, and above 90 it is bluer than grey (b* < 0), which is
        beyond the scale. The skin is a ring around the lesion, a tenth of the frame's diagonal wide, without
        the lesion's margin, hair, dark corners and reflections. NaN where there is no lesion, or where less
        than 0.5 % of the frame remains.
    """
    away = _away(lesion) / np.hypot(*lesion.shape)
    skin = ~lesion & (away > _MARGIN) & (away <= _MARGIN + _RING)
    skin &= _u8(cv2.dilate(hair.astype(np.uint8), np.ones((3, 3), np.uint8))) == 0
    skin &= image.min(axis=2) < _GLARE
    if not lesion.any() or not skin.any():
        return float("nan")
    lightness, yellow = _lightness_and_yellow(image[skin])
    # Relative to the bright quarter of the ring: dark skin is dark throughout, corners beside skin are not.
    lit = lightness >= _SHADE * np.percentile(lightness, 75)
    if lit.sum() < _LEAST_SKIN * skin.size:
        return float("nan")
    angle = float(np.degrees(np.arctan2(np.median(lightness[lit]) - 50, np.median(yellow[lit]))))
    # Beyond the scale is one side: dark and bluish would otherwise be the darkest of all.
    return angle + 360 if angle < -90 else angle


def _lightness_and_yellow(colours: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Converts n sRGB colours, shape (n, 3), to CIE L* and b* under D65.

    OpenCV interpolates its tables, which is half a degree wrong for dark skin.
    """
    y, z = (_LINEAR[colours] @ _TO_YZ).T
    cubes = [np.where(v > 216 / 24389, np.cbrt(v), (24389 / 27 * v + 16) / 116) for v in (y, z)]
    return 116 * cubes[0] - 16, 200 * (cubes[0] - cubes[1])


def _away(lesion: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance of each pixel to the lesion, in pixels; huge where there is none."""
    away = cv2.distanceTransform((~lesion).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(away, dtype=np.float32)


def _resize(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Brings the longest side to `side` pixels."""
    scale = side / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return _u8(cv2.resize(image, size, interpolation=how))


def _fit(lesion: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Brings a mask to a height and width: lesion where it covers at least half of a pixel."""
    if lesion.shape == size:
        return lesion
    shrinks = lesion.shape[0] >= size[0] and lesion.shape[1] >= size[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    grey = cv2.resize(lesion.astype(np.uint8) * np.uint8(255), size[::-1], interpolation=how)
    return np.asarray(grey > 127, dtype=np.bool_)


def _closings(grey: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    """Closes with a line element of each direction; shape (directions, H, W)."""
    return np.stack([_u8(cv2.morphologyEx(grey, cv2.MORPH_CLOSE, line)) for line in _lines(length)])


def _u8(mat: object) -> NDArray[np.uint8]:
    """Says of what OpenCV returns that it is 8-bit, without a copy."""
    return np.asarray(mat, dtype=np.uint8)


def _lines(length: int) -> list[NDArray[np.uint8]]:
    """Line elements of an odd length in pixels, in equal steps over half a turn."""
    half = length // 2
    elements = []
    for angle in np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS:
        x, y = half * np.cos(angle), half * np.sin(angle)
        element = np.zeros((length, length), np.uint8)
        cv2.line(element, (round(half - x), round(half - y)), (round(half + x), round(half + y)), 1)
        elements.append(element)
    return elements
