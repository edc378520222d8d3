"""What lies on the skin or the lens in dermoscopy, drawn over photographs: hair, rulers, ink, gel.

Lengths are shares of the image's longer side, so that one setting serves every input size.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from albumentations.core.pydantic import check_range_bounds
from numpy.typing import NDArray
from pydantic import AfterValidator

from skinseg.data.transforms.appearance import Appearance, Counts, Pair, Shares
from skinseg.data.transforms.drawing import Chart, Picture, blend, curve, noise, opacity, ramp, stroke

Points = NDArray[np.float64]

HairColour = Literal["black", "brown", "red", "blond", "grey"]
HAIR_COLOURS: dict[HairColour, tuple[int, int, int]] = {
    "black": (30, 24, 26),
    "brown": (70, 46, 34),
    "red": (120, 66, 40),
    "blond": (176, 140, 98),
    "grey": (168, 162, 158),
}
InkColour = Literal["violet", "blue", "black", "green"]
# Which share of red, green and blue light the ink lets through.
INKS: dict[InkColour, tuple[float, float, float]] = {
    "violet": (0.35, 0.2, 0.6),
    "blue": (0.22, 0.3, 0.68),
    "black": (0.25, 0.25, 0.3),
    "green": (0.2, 0.5, 0.38),
}
RulerStyle = Literal["scale", "edge", "strip"]
InkShape = Literal["ring", "dots", "line", "scribble"]

_FINEST = 1000
"""Fine lines are drawn on a layer whose longer side has at least so many pixels, and averaged down."""


def _some(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("found none, expected one at least")
    return values


def _chance(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"found {value}, expected 0 to 1")
    return value


class Hair(Appearance):
    """Curved strands of hair of one natural colour, tapering to their tips, with a faint shadow.

    Args:
        number_range: Number of strands.
        thickness_range: Thickness of a strand, as a share of the image's longer side.
        length_range: Length of a strand, as a share of the image's longer side.
        opacity_range: How much of the skin below a strand hides, 0 to 1.
        colours: What a head may have: "black", "brown", "red", "blond", "grey".
        stubble: Chance that the hair was shaved: strands of an eighth of their length.
        p: Probability that an image is changed.
    """

    number_range: Counts = (4, 30)
    thickness_range: Shares = (0.002, 0.007)
    length_range: Annotated[Pair, AfterValidator(check_range_bounds(0, 10))] = (0.2, 1.0)
    opacity_range: Shares = (0.6, 0.95)
    colours: Annotated[tuple[HairColour, ...], AfterValidator(_some)] = (
        "black",
        "brown",
        "red",
        "blond",
        "grey",
    )
    stubble: Annotated[float, AfterValidator(_chance)] = 0.15

    def draw(self, image: Picture, rng: np.random.Generator) -> Picture:
        """Returns the image with hair over it."""
        height, width = image.shape[:2]
        side, fine = max(height, width), _fineness(image)
        colour = np.array(HAIR_COLOURS[self.colours[rng.integers(len(self.colours))]])
        direction, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.7)
        bend = rng.uniform(0.2, 1.0)
        shorter = 0.125 if rng.random() < self.stubble else 1.0
        layer = np.zeros((fine * height, fine * width), np.uint8)
        # Colours vary from strand to strand; below the layer of opacities they may be drawn roughly.
        tints = np.empty((height, width, 3), np.uint8)
        tints[:] = np.clip(colour, 0, 255)
        for _ in range(rng.integers(self.number_range[0], self.number_range[1] + 1)):
            length = shorter * side * rng.uniform(*self.length_range)
            thickness = side * rng.uniform(*self.thickness_range)
            angle = direction + rng.normal(0, spread)
            middle = rng.uniform(-0.05, 1.05, 2) * (width, height)
            start = middle - 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
            path = curve(rng, start, angle, length, bend * shorter)
            tint = np.clip(colour * rng.uniform(0.75, 1.3), 0, 255)
            points = np.round(path * 16).astype(np.int32)
            cv2.polylines(tints, [points], False, tint.tolist(), int(thickness) + 3, shift=4)
            _strand(layer, fine * path, fine * thickness, 255 * rng.uniform(*self.opacity_range))
        share = opacity(_averaged(layer, image))
        share = blurred(share, side / 256 * rng.uniform(0.15, 0.5))
        lit = image.astype(np.float32)
        away = np.array([[1, 0, side * rng.normal(0, 0.004)], [0, 1, side * rng.normal(0, 0.004)]])
        moved = np.asarray(cv2.warpAffine(share, away, (width, height)), np.float32)
        lit *= 1 - np.float32(rng.uniform(0, 0.4)) * blurred(moved, 0.004 * side + 0.1)[..., None]
        blend(lit, tints.astype(np.float32), share)
        return whole(lit)


class Ruler(Appearance):
    """The marks of a ruler or of the dermatoscope's scale, longer at each fifth one, some with numbers.

    Args:
        styles: "scale": a short scale within the image, "edge": marks along an edge, "strip": a white ruler
            laid over an edge.
        spacing_range: From mark to mark, as a share of the image's longer side.
        opacity_range: Opacity of the marks, 0 to 1.
        p: Probability that an image is changed.
    """

    styles: Annotated[tuple[RulerStyle, ...], AfterValidator(_some)] = ("scale", "edge", "strip")
    spacing_range: Annotated[Pair, AfterValidator(check_range_bounds(0.005, 1))] = (0.018, 0.04)
    opacity_range: Shares = (0.6, 0.95)

    def draw(self, image: Picture, rng: np.random.Generator) -> Picture:
        """Returns the image with a ruler in it."""
        height, width = image.shape[:2]
        side, fine = max(height, width), _fineness(image)
        style = self.styles[rng.integers(len(self.styles))]
        # Coordinates along an edge, from its middle, and from the edge inwards.
        quarter = int(rng.integers(4))
        angle = quarter * np.pi / 2 + rng.normal(0, 0.06 if style == "scale" else 0.02)
        along, inwards = np.array([np.cos(angle), np.sin(angle)]), np.array([np.sin(angle), -np.cos(angle)])
        edges = ((width / 2, height), (0, height / 2), (width / 2, 0), (width, height / 2))
        middle = np.array(edges[quarter])
        edge = (width, height)[quarter % 2]

        def place(x: float, y: float) -> Points:
            return np.asarray(fine * (middle + x * along + y * inwards))

        spacing = side * rng.uniform(*self.spacing_range)
        depth = side * rng.uniform(0.08, 0.16)
        reach = 0.75 * max(height, width)
        first, last, base, mark = -reach, reach, 0.0, side * rng.uniform(0.025, 0.05)
        thickness = max(0.6, spacing * rng.uniform(0.08, 0.14))
        if style == "scale":
            first = -edge * rng.uniform(0.1, 0.35)
            last = first + edge * rng.uniform(0.3, 0.5)
            base = side * rng.uniform(0.05, 0.14)
            mark = min(mark, 0.9 * spacing)
        elif style == "strip":
            base, mark, thickness = depth, -0.4 * depth, spacing * rng.uniform(0.15, 0.35)
        elif rng.random() < 0.5:  # only as far as the plate of the dermatoscope reaches
            first, last = np.sort(rng.uniform(-0.5, 0.5, 2)) * edge
            last = max(last, first + 6 * spacing)
        lit = image.astype(np.float32)
        if style == "strip":
            paper = np.zeros((fine * height, fine * width), np.uint8)
            corners = [place(-2 * reach, -side), place(2 * reach, -side), place(2 * reach, depth)]
            cv2.fillPoly(paper, [np.array([*corners, place(-2 * reach, depth)], np.int32)], 255)
            white = rng.uniform(0.85, 1) * np.array((250, 248, 244), np.float32)
            blend(lit, white, opacity(_averaged(paper, image)))
        layer = np.zeros((fine * height, fine * width), np.uint8)
        numbers = rng.random() < 0.6
        for number, x in enumerate(np.arange(first, last, spacing)):
            longer = 1.9 if number % 10 == 0 else 1.4 if number % 5 == 0 else 1.0
            tip = base + longer * mark
            stroke(layer, np.stack([place(x, base), place(x, tip)]), fine * thickness)
            if numbers and number % 10 == 0 and style != "edge":
                _number(layer, str(number // 10), place(x, tip + 1.2 * mark), angle, fine * abs(mark))
        share = np.float32(rng.uniform(*self.opacity_range)) * opacity(_averaged(layer, image))
        blend(lit, rng.uniform(0.6, 1.4) * np.array((38, 35, 40), np.float32), share)
        return whole(lit)


class Ink(Appearance):
    """Marks of a surgical pen on the skin, which let its relief show through.

    Args:
        colours: "violet" (gentian violet), "blue", "black", "green".
        shapes: "ring" around the middle of the image, "dots", "line", "scribble".
        thickness_range: Thickness of the pen, as a share of the image's longer side.
        opacity_range: How much of what it can absorb the ink absorbs, 0 to 1.
        p: Probability that an image is changed.
    """

    colours: Annotated[tuple[InkColour, ...], AfterValidator(_some)] = (
        "violet",
        "violet",
        "blue",
        "black",
        "green",
    )
    shapes: Annotated[tuple[InkShape, ...], AfterValidator(_some)] = ("ring", "dots", "line", "scribble")
    thickness_range: Shares = (0.012, 0.03)
    opacity_range: Shares = (0.5, 0.95)

    def draw(self, image: Picture, rng: np.random.Generator) -> Picture:
        """Returns the image with ink on the skin."""
        height, width = image.shape[:2]
        side = max(height, width)
        colour = np.array(INKS[self.colours[rng.integers(len(self.colours))]], np.float32)
        shape = self.shapes[rng.integers(len(self.shapes))]
        thickness = side * rng.uniform(*self.thickness_range)
        layer = np.zeros((height, width), np.uint8)
        for path in _pen(rng, shape, height, width):
            stroke(layer, path, thickness)
        share = blurred(opacity(layer), 0.25 * thickness + 0.2)
        # The pen catches on the relief of the skin, and leaves more ink here than there.
        relief = ramp(noise(rng, (height, width), 50, 2), -1.5, 0.3)
        share *= (0.25 + 0.75 * relief) * ramp(noise(rng, (height, width), 6, 2), -2.2, 0.2)
        share *= np.float32(rng.uniform(*self.opacity_range))
        return whole(image * (1 - share[..., None] * (1 - colour)))


class Bubbles(Appearance):
    """Air bubbles in the immersion gel, in loose clusters: a dark outline, a bright rim, a gleam.

    Args:
        number_range: Number of bubbles.
        radius_range: Of a bubble, as a share of the image's longer side; small ones are the most frequent.
        opacity_range: Opacity of rim and gleam, 0 to 1.
        p: Probability that an image is changed.
    """

    number_range: Counts = (3, 30)
    radius_range: Annotated[Pair, AfterValidator(check_range_bounds(0.001, 1))] = (0.005, 0.035)
    opacity_range: Shares = (0.35, 0.85)

    def draw(self, image: Picture, rng: np.random.Generator) -> Picture:
        """Returns the image with bubbles."""
        height, width = image.shape[:2]
        side, fine = max(height, width), _fineness(image)
        bright = np.zeros((fine * height, fine * width), np.uint8)
        dark = np.zeros_like(bright)
        lamp = rng.uniform(0, 360)
        heart, spread = rng.uniform(0, 1, 2) * (width, height), side * rng.uniform(0.08, 0.4)
        low, high = self.radius_range
        for _ in range(rng.integers(self.number_range[0], self.number_range[1] + 1)):
            radius = fine * side * low * (high / low) ** (rng.random() ** 2)
            x, y = (int(v) for v in fine * rng.normal(heart, spread))
            size, rim = max(1, round(radius)), max(1, round(0.16 * radius))
            centre = (x, y)
            cv2.circle(bright, centre, size, 26, cv2.FILLED, cv2.LINE_AA)
            cv2.circle(dark, centre, size, 70, rim, cv2.LINE_AA)
            cv2.circle(bright, centre, max(1, size - rim), 120, rim, cv2.LINE_AA)
            inner = (max(1, size - rim),) * 2
            cv2.ellipse(bright, centre, inner, lamp, -35, 35, 255, 2 * rim, cv2.LINE_AA)
            cv2.ellipse(bright, centre, inner, lamp, 155, 205, 190, rim, cv2.LINE_AA)
        lit = image.astype(np.float32)
        lit *= 1 - opacity(_averaged(dark, image))[..., None]
        share = np.float32(rng.uniform(*self.opacity_range)) * opacity(_averaged(bright, image))
        blend(lit, (255, 250, 246), share)
        return whole(lit)


class GelBorder(Appearance):
    """The border of the immersion gel: a bright and a dark line, and dry, dull skin beyond them.

    Args:
        distance_range: Of the border from the image's middle, in halves of its longer side.
        opacity_range: Opacity of the lines, 0 to 1.
        dullness_range: How much duller dry skin is, 0 to 1.
        p: Probability that an image is changed.
    """

    distance_range: Annotated[Pair, AfterValidator(check_range_bounds(0, 2))] = (0.3, 0.9)
    opacity_range: Shares = (0.25, 0.7)
    dullness_range: Shares = (0.05, 0.25)

    def draw(self, image: Picture, rng: np.random.Generator) -> Picture:
        """Returns the image with the gel's border in it."""
        shape = (image.shape[0], image.shape[1])
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2)
        outwards = np.array([np.cos(angle), np.sin(angle)])
        centre = (rng.uniform(*self.distance_range) - radius) * outwards
        x, y = grid(shape, (float(centre[0]), float(centre[1])))
        level = np.hypot(x, y) - np.float32(radius)
        level += np.float32(rng.uniform(0.01, 0.06)) * noise(rng, shape, 3, 3)
        width = rng.uniform(0.006, 0.02)
        uneven = ramp(noise(rng, shape, 7, 2), -1.2, 1.2)
        strength = np.float32(rng.uniform(*self.opacity_range))
        lit = image.astype(np.float32)
        dry = ramp(level, 0, 0.06) * np.float32(rng.uniform(*self.dullness_range))
        blend(lit, (205, 196, 196), dry * (0.8 + 0.2 * noise(rng, shape, 60)).clip(0, 1))
        lit *= 1 - (0.35 * strength * _line(level + np.float32(1.8 * width), 1.4 * width))[..., None]
        blend(lit, (255, 250, 246), strength * uneven * _line(level, 0.6 * width))
        return whole(lit)


def grid(shape: tuple[int, int], centre: tuple[float, float] = (0.0, 0.0)) -> tuple[Chart, Chart]:
    """Returns x of shape (1, width) and y of shape (height, 1), from a point, in halves of the longer side.

    Args:
        shape: Height and width in pixels.
        centre: x and y of the point, from the image's middle.
    """
    height, width = shape
    half = max(height, width) / 2
    x = (np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)) / np.float32(half)
    y = (np.arange(height, dtype=np.float32) - np.float32((height - 1) / 2)) / np.float32(half)
    return (x - np.float32(centre[0]))[None], (y - np.float32(centre[1]))[:, None]


def blurred(chart: Chart, sigma: float) -> Chart:
    """Blurs by a Gaussian of that standard deviation, in pixels."""
    return np.asarray(cv2.GaussianBlur(chart, (0, 0), sigma), np.float32)


def whole(lit: Chart) -> Picture:
    """Rounds to whole values of 0 to 255."""
    return np.asarray(cv2.convertScaleAbs(np.maximum(lit, 0)), np.uint8)


def _line(level: Chart, width: float) -> Chart:
    return np.asarray(np.exp(-np.square(level / np.float32(width))), np.float32)


def _fineness(image: Picture) -> int:
    """Returns how many pixels of the layer of fine lines a pixel of the image has on a side."""
    return int(np.clip(-(-_FINEST // max(image.shape[:2])), 1, 8))


def _averaged(layer: Picture, image: Picture) -> Picture:
    size = (image.shape[1], image.shape[0])
    return np.asarray(cv2.resize(layer, size, interpolation=cv2.INTER_AREA), np.uint8)


def _strand(layer: Picture, path: Points, thickness: float, value: float) -> None:
    """Fills a line that is full at its root and thin at its tip."""
    ahead = np.gradient(path, axis=0)
    across = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-9
    half = np.linspace(1, 0, len(path)) ** 0.5 * max(thickness, 1) / 2
    outline = np.concatenate([path + half[:, None] * across, (path - half[:, None] * across)[::-1]])
    # Thinner than a pixel of the layer is fainter.
    faint = round(value * min(1.0, thickness))
    cv2.fillPoly(layer, [np.round(outline * 16).astype(np.int32)], faint, cv2.LINE_AA, shift=4)


def _number(layer: Picture, text: str, place: Points, angle: float, height: float) -> None:
    """Writes a number upright to a line of that angle, centred on a place."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, height / 22
    thickness = max(1, round(2 * scale))
    (wide, high), _ = cv2.getTextSize(text, font, scale, thickness)
    patch = np.zeros((high + 2 * thickness, wide + 2 * thickness), np.uint8)
    cv2.putText(patch, text, (thickness, high + thickness), font, scale, 255, thickness, cv2.LINE_AA)
    # Turned within a square that holds it at any angle; to warp the whole layer would take much longer.
    half = math.ceil(math.hypot(*patch.shape) / 2) + 1
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    left, top = np.floor(place).astype(int) - half
    rows, columns = slice(max(top, 0), max(top + 2 * half, 0)), slice(max(left, 0), max(left + 2 * half, 0))
    below = layer[rows, columns]
    if not below.size:
        return
    shift = place - (left, top) - turn @ (np.array(patch.shape[::-1]) / 2)
    turned = cv2.warpAffine(patch, np.concatenate([turn, shift[:, None]], axis=1), (2 * half, 2 * half))
    within = turned[rows.start - top :, columns.start - left :][: below.shape[0], : below.shape[1]]
    np.maximum(below, within, out=below)


def _pen(rng: np.random.Generator, shape: InkShape, height: int, width: int) -> list[Points]:
    """Returns the lines that a pen draws, in pixels."""
    side, middle = max(height, width), np.array([width, height]) / 2
    if shape == "ring":
        turn = np.linspace(0, 2 * np.pi * rng.uniform(0.6, 1.0), 97) + rng.uniform(0, 2 * np.pi)
        waves = rng.normal(0, 0.08, 3) @ np.cos(np.arange(1, 4)[:, None] * turn + rng.uniform(0, 6, (3, 1)))
        radii = rng.uniform(0.3, 0.46, 2) * (width, height)
        ring = middle + (1 + waves[:, None]) * radii * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        if rng.random() < 0.5:
            return [ring]
        return [ring[start : start + 2] for start in range(0, 96, 3)]
    if shape == "dots":
        places = rng.uniform(0, 2 * np.pi, int(rng.integers(2, 7)))
        away = np.stack([np.cos(places), np.sin(places)], axis=1) * (width, height)
        spots = middle + away * rng.uniform(0.25, 0.48, (len(places), 1))
        return [np.stack([spot, spot + rng.normal(0, 0.01, 2) * side]) for spot in spots]
    edge = rng.uniform(0, 2 * np.pi)
    start = middle + np.array([np.cos(edge), np.sin(edge)]) * (width, height) * rng.uniform(0.3, 0.5)
    if shape == "line":
        across = edge + np.pi / 2 + rng.normal(0, 0.5)
        length = side * rng.uniform(0.3, 0.9)
        start = start - 0.5 * length * np.array([np.cos(across), np.sin(across)])
        return [curve(rng, start, across, length, 0.4)]
    step = side * rng.uniform(0.025, 0.05)
    back_and_forth = np.cumsum(rng.normal(0, 0.5, (9, 2)), axis=0) * step
    back_and_forth[::2, 1] += 2 * step
    return [start + back_and_forth]
