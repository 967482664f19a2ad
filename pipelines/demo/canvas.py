"""What the demo's pictures are drawn on: a canvas with its pen, its light and its source of chance."""

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Place = tuple[float, float]


class Canvas:
    """A picture being drawn, with its pen and its source of chance; all lengths in its pixels."""

    def __init__(self, width: int, height: int, rng: np.random.Generator) -> None:
        self.width, self.height, self.rng = width, height, rng
        self.side = min(width, height)
        self.horizon = height * float(rng.uniform(0.38, 0.72))
        self.image = Image.new("RGB", (width, height))
        self.pen = ImageDraw.Draw(self.image)
        self._gain = rng.uniform(0.93, 1.05, 3) * rng.uniform(0.82, 1.08)  # the camera's white and exposure

    def tint(self, colours: str) -> list[Colour]:
        """Hex colours, as this picture's light and camera show them."""
        rgb = np.array([list(bytes.fromhex(colour)) for colour in colours.split()], dtype=np.float64)
        rgb = np.clip(rgb * self._gain + self.rng.uniform(-10, 10, rgb.shape), 0, 255)
        return [(int(red), int(green), int(blue)) for red, green, blue in rgb]

    def gradient(self, top: Colour, bottom: Colour) -> None:
        """Fill the picture from top to bottom, unevenly."""
        ramp = np.linspace(0, 1, 4)[:, None] + self.rng.uniform(-0.18, 0.18, (4, 3))
        cells = np.array(top) + (np.array(bottom) - np.array(top)) * np.clip(ramp, 0, 1)[..., None]
        small = Image.fromarray(cells.astype(np.uint8))
        self.image.paste(small.resize((self.width, self.height), Image.Resampling.BICUBIC))

    def shape(self, points: list[Place], at: Place, size: float, fill: Colour, *, turn: float = 0.0) -> None:
        """Fill a polygon, given in units of `size` around `at` and turned by `turn` radians."""
        cos, sin = np.cos(turn) * size, np.sin(turn) * size
        self.pen.polygon(
            [(at[0] + x * cos - y * sin, at[1] + x * sin + y * cos) for x, y in points], fill=fill
        )

    def disc(self, at: Place, radius: float, fill: Colour, *, squash: float = 1.0) -> None:
        """Fill a circle, or an ellipse that is `squash` times as high as wide."""
        x, y = at
        self.pen.ellipse((x - radius, y - radius * squash, x + radius, y + radius * squash), fill=fill)

    def box(self, at: Place, size: float, corners: tuple[float, float, float, float], fill: Colour) -> None:
        """Fill a rectangle: left, top, right, bottom in units of `size` around `at`."""
        left, top, right, bottom = corners
        x, y = at
        self.pen.rectangle((x + left * size, y + top * size, x + right * size, y + bottom * size), fill=fill)


def shade(colour: Colour, gain: float) -> Colour:
    """The colour, darker (gain < 1) or lighter."""
    red, green, blue = (min(255, int(channel * gain)) for channel in colour)
    return (red, green, blue)


def blend(one: Colour, other: Colour, share: float) -> Colour:
    """The colour that lies `share` of the way from one to the other."""
    red, green, blue = (int(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return (red, green, blue)
