"""Renders images of characters from the fonts that ship with matplotlib.

`atlas` draws every character once for each face and stroke width; `render`
picks drawings from an atlas and distorts them, a whole batch at a time.
"""

import pathlib
import string
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from keras_cascade.zoo import SIDE, enlarge

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
# Characters that look alike once size and font vary are one class.
LOOK_ALIKES = {"O": "0", "o": "0", "I": "1", "l": "1"} | {
    small: small.upper() for small in "cjkpsuvwxyz"
}
CLASSES = sorted({LOOK_ALIKES.get(c, c) for c in CHARACTERS})
CELL = 64  # pixels a side of a drawing in the atlas
FILLED = 48  # of which the longer side of the character takes so many


class Face(NamedTuple):
    """A font file and the code points at which its alphabets begin."""

    file: str
    digits: int | None = ord("0")
    upper: int | None = ord("A")
    lower: int | None = ord("a")

    def glyph(self, character: str) -> str | None:
        """Returns the character's glyph in this face, or None."""
        for alphabet, start in (
            (string.digits, self.digits),
            (string.ascii_uppercase, self.upper),
            (string.ascii_lowercase, self.lower),
        ):
            if character in alphabet and start is not None:
                return chr(start + alphabet.index(character))
        return None


def _mathematical(upper: int, digits: int | None = None) -> Face:
    """Returns an alphabet of Unicode's mathematical block, drawn by STIX."""
    return Face("STIXGeneral", digits, upper, upper + 26)


TRAIN_FACES = [
    *map(
        Face,
        (
            "DejaVuSans",
            "DejaVuSans-Bold",
            "DejaVuSans-Oblique",
            "DejaVuSans-BoldOblique",
            "DejaVuSansMono",
            "DejaVuSansMono-Bold",
            "DejaVuSansMono-Oblique",
            "DejaVuSerif",
            "DejaVuSerif-Italic",
            "DejaVuSerif-BoldItalic",
            "STIXGeneral",
            "STIXGeneralBol",
            "STIXGeneralBolIta",
            "cmr10",
            "cmb10",
            "cmti10",
        ),
    ),
    _mathematical(0x1D5A0, 0x1D7E2),  # sans
    _mathematical(0x1D5D4, 0x1D7EC),  # bold sans
    _mathematical(0x1D608),  # oblique sans
    _mathematical(0x1D4D0),  # bold script, the nearest to handwriting
    Face("cmmi10", digits=None),
    Face("cmsy10", digits=None, lower=None),  # calligraphic capitals
]
# Training sees no other cut of the designs cmss10 and cmtt10.
TEST_FACES = [
    *map(Face, ("cmss10", "cmtt10", "STIXGeneralItalic", "DejaVuSerif-Bold"))
]


class Atlas(NamedTuple):
    """Drawings (n, 64, 64) of uint8, and the character of each (n,)."""

    drawings: np.ndarray
    characters: np.ndarray


def atlas(faces: list[Face]) -> Atlas:
    """Draws all characters of the faces, each with several stroke widths."""
    drawings, characters = [], []
    for face in faces:
        path = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
        font = ImageFont.truetype(path / f"{face.file}.ttf", 96)
        # Only strokes of even width survive being thinned.
        thinnest = -2 if face.file.startswith("DejaVuSans") else 0
        for character in CHARACTERS:
            glyph = face.glyph(character)
            for stroke in {thinnest, 0, 3, 6} if glyph else ():
                drawings.append(_draw(font, glyph, stroke))
                characters.append(character)
    return Atlas(np.stack(drawings), np.array(characters))


def _draw(font: ImageFont.FreeTypeFont, glyph: str, stroke: int) -> np.ndarray:
    """Draws a glyph, its strokes widened or thinned, to fill its cell."""
    page = Image.new("L", (256, 256))
    ImageDraw.Draw(page).text(
        (128, 128),
        glyph,
        fill=255,
        font=font,
        anchor="mm",
        stroke_width=max(stroke, 0),
    )
    if stroke < 0:
        page = page.filter(ImageFilter.MinFilter(1 - 2 * stroke))
    page = page.crop(page.getbbox())
    scale = FILLED / max(page.size)
    size = [max(1, round(side * scale)) for side in page.size]
    page = page.resize(size, Image.Resampling.LANCZOS)
    cell = Image.new("L", (CELL, CELL))
    cell.paste(page, [(CELL - side) // 2 for side in size])
    return np.asarray(cell)


def render(
    source: Atlas, classes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Renders a distorted image for each wanted class.

    Half of the images look like scanned digits: cut to black and white,
    averaged to 8x8, enlarged again.

    Args:
        source: The drawings to choose from.
        classes: Entries of `CLASSES`, shape (n,).
        rng: Chooses drawings and distortions.

    Returns:
        A float32 array of shape (n, 32, 32, 1), white on black, in [0, 255].
    """
    merged = [LOOK_ALIKES.get(c, c) for c in source.characters]
    of_class = {c: np.flatnonzero(np.array(merged) == c) for c in set(merged)}
    chosen = np.array([rng.choice(of_class[c]) for c in classes])
    scanned = rng.random(len(classes)) < 0.5
    images = _warp(source.drawings[chosen], scanned, rng)
    images = np.where(
        scanned[:, None, None], _scan(images, rng), _photograph(images, rng)
    )
    return (255 * images[..., None].clip(0, 1)).astype("float32")


def _uniform(
    rng: np.random.Generator, n: int, low: float, high: float
) -> np.ndarray:
    """Returns a random number for each image, to broadcast over its pixels."""
    return rng.uniform(low, high, (n, 1, 1)).astype("float32")


def _warp(
    drawings: np.ndarray, scanned: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Samples the drawings at turned, sheared, bent positions, in [0, 1]."""
    n = len(drawings)
    angle = _uniform(rng, n, -0.3, 0.3)
    shear = _uniform(rng, n, -0.35, 0.35)
    stretch = np.exp(_uniform(rng, n, -0.25, 0.45))
    # Scans are cut to the character, photographs leave it some room.
    filled = _uniform(rng, n, 0.55, 1.0)
    filled[scanned] = 0.85 + 0.35 * (filled[scanned] - 0.55)
    room = np.maximum(0.05, 1 - filled)
    line = np.linspace(-1, 1, SIDE, dtype="float32")
    y, x = np.meshgrid(line, line, indexing="ij")
    y = y + room * _uniform(rng, n, -0.6, 0.6) + _bend(rng, n)
    x = x + room * _uniform(rng, n, -0.6, 0.6) + _bend(rng, n)
    y, x = (
        np.cos(angle) * y - np.sin(angle) * x,
        np.sin(angle) * y + np.cos(angle) * x,
    )
    reach = FILLED / CELL / filled
    return _sample(drawings, reach * y, reach * (x * stretch + shear * y))


def _bend(rng: np.random.Generator, n: int) -> np.ndarray:
    """Returns smooth random displacements (n, 32, 32), larger for some."""
    knots = np.linspace(-1, 1, 5)
    line = np.linspace(-1, 1, SIDE)
    smooth = np.exp(-(((line[:, None] - knots) / 0.5) ** 2))
    smooth = (smooth / smooth.sum(1, keepdims=True)).astype("float32")
    field = rng.standard_normal((n, 5, 5), dtype="float32")
    return _uniform(rng, n, 0.0, 0.3) * (smooth @ field @ smooth.T)


def _sample(drawings: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns bilinear samples of the drawings at positions in [-1, 1]."""
    y, x = (((p + 1) * (CELL / 2) - 0.5).clip(0, CELL - 1.001) for p in (y, x))
    top, left = y.astype("int32"), x.astype("int32")
    down, right = y - top, x - left
    flat = drawings.reshape(-1)
    start = np.arange(len(drawings))[:, None, None] * CELL**2
    corner = start + top * CELL + left
    upper = flat[corner] * (1 - right) + flat[corner + 1] * right
    lower = flat[corner + CELL] * (1 - right) + flat[corner + CELL + 1] * right
    return (upper * (1 - down) + lower * down) / 255


def _scan(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Makes images black and white, averages them to 8x8 and enlarges them."""
    n = len(images)
    ink = images > _uniform(rng, n, 0.2, 0.5)
    small = ink.reshape(n, 8, SIDE // 8, 8, SIDE // 8).mean(axis=(2, 4))
    return enlarge(small)


def _photograph(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds blur, contrast, a grey background and noise."""
    n = len(images)
    blurred = images
    for axis in (1, 2):
        sides = np.roll(blurred, 1, axis) + np.roll(blurred, -1, axis)
        blurred = 0.5 * blurred + 0.25 * sides
    share = _uniform(rng, n, 0, 1)
    images = share * blurred + (1 - share) * images
    images = ((images - 0.5) * _uniform(rng, n, 0.9, 2.5) + 0.5).clip(0, 1)
    background = np.maximum(0, _uniform(rng, n, -0.15, 0.15))
    images = background + images * (_uniform(rng, n, 0.5, 1) - background)
    noise = rng.standard_normal(images.shape, dtype="float32")
    return images + noise * np.maximum(0, _uniform(rng, n, -0.06, 0.08))
