"""Pictures of which a perceptual hash knows little or nothing, no two of them alike, and line drawings."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (128, 128, 128)
SIDE_PX = 128
DRAWING_PX = 256


def flat_colours() -> dict[str, Image.Image]:
    """One colour each; the last two have one grey level."""
    colours = {
        "red": (255, 0, 0),
        "blue": (0, 0, 255),
        "green": (0, 128, 0),
        "black": BLACK,
        "white": WHITE,
        "grey": GREY,
        "pale": (235, 235, 235),
        "brown": (200, 0, 0),
        "petrol": (0, 78, 120),
    }
    return {name: Image.new("RGB", (SIDE_PX, SIDE_PX), colour) for name, colour in colours.items()}


def flags() -> dict[str, Image.Image]:
    """Bands and crosses."""
    red, blue, green, gold = (206, 17, 38), (0, 57, 166), (0, 122, 61), (255, 206, 0)
    found = {
        "nl": _bands([red, WHITE, blue]),
        "ru": _bands([WHITE, blue, red]),
        "de": _bands([BLACK, red, gold]),
        "hu": _bands([red, WHITE, green]),
        "fr": _bands([blue, WHITE, red], upright=True),
        "it": _bands([green, WHITE, red], upright=True),
        "be": _bands([BLACK, gold, red], upright=True),
        "ro": _bands([blue, gold, red], upright=True),
        "pl": _bands([WHITE, red]),
        "id": _bands([red, WHITE]),
        "ua": _bands([blue, gold]),
        "at": _bands([red, WHITE, red]),
    }
    for name, ground, cross in (("dk", red, WHITE), ("se", blue, gold), ("fi", WHITE, blue)):
        found[name] = Image.new("RGB", (SIDE_PX, SIDE_PX), ground)
        pen = ImageDraw.Draw(found[name])
        pen.rectangle((0, 52, 127, 75), fill=cross)
        pen.rectangle((40, 0, 59, 127), fill=cross)
    return found


def gradients() -> dict[str, Image.Image]:
    """Skies and rainbows."""
    t = np.linspace(0, 1, SIDE_PX)[:, None, None]
    hue = lambda t: np.clip(np.abs((t * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)  # noqa: E731
    fades = {
        "dawn": ((20, 60, 160), (250, 180, 120)),
        "day": ((60, 120, 220), (220, 235, 255)),
        "night": ((0, 0, 10), (10, 10, 60)),
        "up": (BLACK, WHITE),
        "down": (WHITE, BLACK),
    }
    found = {name: np.array(a) + (np.array(b) - np.array(a)) * t for name, (a, b) in fades.items()}
    found["rainbow"], found["half rainbow"] = 255 * hue(t), 255 * hue(t / 2)
    pictures = {name: _picture(np.broadcast_to(a, (SIDE_PX, SIDE_PX, 3))) for name, a in found.items()}
    return pictures | {"across": pictures["up"].transpose(Image.Transpose.TRANSPOSE)}


def patterns() -> dict[str, Image.Image]:
    """Stripes and boards of several periods; the finer ones are all one grey once they are made small."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    found = {}
    for side in (1, 2, 4, 8):
        found[f"rows {side}"] = y // side % 2
        found[f"columns {side}"] = x // side % 2
        found[f"board {side}"] = (x // side + y // side) % 2
    return {
        name: _picture(255 * np.repeat(mask[..., None], 3, axis=2).astype(float))
        for name, mask in found.items()
    }


def drawings() -> dict[str, Image.Image]:
    """Icons, letters, charts, pages and codes, black on white for the most part."""
    found: dict[str, Image.Image] = {}

    def sheet(name: str) -> ImageDraw.ImageDraw:
        found[name] = Image.new("RGB", (DRAWING_PX, DRAWING_PX), WHITE)
        return ImageDraw.Draw(found[name])

    for sides in (3, 4, 5, 6):
        sheet(f"{sides} corners").regular_polygon((128, 128, 90), sides, outline=BLACK, width=6)
        sheet(f"{sides} corners, full").regular_polygon((128, 128, 90), sides, fill=BLACK)
    for radius in (40, 70, 100):
        box = (128 - radius, 128 - radius, 128 + radius, 128 + radius)
        sheet(f"ring {radius}").ellipse(box, outline=BLACK, width=6)
        for name, colour in (("black", BLACK), ("red", (255, 0, 0)), ("blue", (0, 0, 255))):
            sheet(f"{name} disc {radius}").ellipse(box, fill=colour)
    pen = sheet("plus")
    pen.rectangle((108, 20, 148, 236), fill=BLACK)
    pen.rectangle((20, 108, 236, 148), fill=BLACK)
    pen = sheet("house")
    pen.polygon([(40, 200), (128, 60), (216, 200)], outline=BLACK, width=6)
    pen.rectangle((60, 200, 196, 240), outline=BLACK, width=6)
    for name, arc in (("smile", (80, 100, 176, 190, 20, 160)), ("frown", (80, 140, 176, 230, 200, 340))):
        pen = sheet(name)
        pen.ellipse((40, 40, 216, 216), outline=BLACK, width=6)
        pen.ellipse((85, 90, 105, 110), fill=BLACK)
        pen.ellipse((151, 90, 171, 110), fill=BLACK)
        pen.arc(arc[:4], *arc[4:], fill=BLACK, width=6)
    large, small = ImageFont.load_default(150), ImageFont.load_default(16)
    for letter in "AHIOTXZ8":
        sheet(f"letter {letter}").text((128, 128), letter, fill=BLACK, font=large, anchor="mm")
    tiny = ImageFont.load_default(24)
    for letter in "ABDGKOQRSUVX035689":
        sheet(f"small {letter}").text((128, 128), letter, fill=BLACK, font=tiny, anchor="mm")
    rng = np.random.default_rng(7)
    words = ["lorem", "ipsum", "dolor", "sit", "amet", "elit", "sed", "tempor"]
    for number in range(3):
        pen = sheet(f"page {number}")
        for line in range(12):
            pen.text((16, 14 + line * 19), " ".join(rng.choice(words, 5)), fill=BLACK, font=small)
        pen = sheet(f"bars {number}")
        for place, height in enumerate(rng.integers(20, 200, 7).tolist()):
            pen.rectangle((20 + 32 * place, 236 - height, 42 + 32 * place, 236), fill=(70, 130, 180))
        code = np.kron(rng.random((32, 32)) < 0.5, np.ones((8, 8)))
        found[f"code {number}"] = _picture(255 * np.repeat(code[..., None], 3, axis=2))
    return found


def all_unlike() -> dict[str, Image.Image]:
    """All of them by one name each."""
    kinds = (flat_colours(), flags(), gradients(), patterns(), drawings(), night_lights())
    return {name: image for kind in kinds for name, image in kind.items()}


def night_lights() -> dict[str, Image.Image]:
    """Dark photographs with three lamps each, and dark frames of nothing but noise."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    found = {}
    for number in range(3):
        noise = np.abs(rng.normal(0, 1.5, (SIDE_PX, SIDE_PX, 1))) + np.array([2, 2, 5])
        found[f"noise {number}"] = np.full((SIDE_PX, SIDE_PX, 3), 30.0) + rng.normal(0, 4, noise.shape)
        for _ in range(3):
            row, column = rng.integers(8, 120, 2)
            lamp = np.exp(-((y - row) ** 2 + (x - column) ** 2) / 8)[..., None]
            noise = noise + 200 * lamp * np.array([1, 0.9, 0.6])
        found[f"lamps {number}"] = noise
    return {name: _picture(pixels) for name, pixels in found.items()}


def _bands(colours: Sequence[Colour], *, upright: bool = False) -> Image.Image:
    pixels = np.repeat(np.array(colours, float), -(-SIDE_PX // len(colours)), axis=0)[:SIDE_PX]
    picture = _picture(np.repeat(pixels[:, None], SIDE_PX, axis=1))
    return picture.transpose(Image.Transpose.TRANSPOSE) if upright else picture


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
