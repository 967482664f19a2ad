"""The things that the demo's pictures show, each drawn at a place, in a size, in three colours."""

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import ImageFont

from pipelines.demo.canvas import Canvas, Colour, Place, blend, shade
from pipelines.demo.concepts import Motif

WORDS = ("NEWS", "OPEN", "LIVE", "SALE", "JAZZ", "FILM", "CITY", "HELLO", "RADIO", "SUMMER", "ART", "TODAY")


def draw_motif(canvas: Canvas, motif: Motif, at: Place, size: float, *, colours: list[Colour]) -> None:
    """Draw one motif on the canvas.

    Args:
        canvas: what to draw on; its chance turns and varies the motif.
        motif: what to draw.
        at: its middle, pixels of the canvas.
        size: its radius, pixels of the canvas.
        colours: three; the first is the main one.
    """
    DRAWERS[motif](canvas, at, size, colours)


def _draw_dot(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main = colours[0]
    x, y = at
    canvas.disc(at, size, shade(main, 0.8))
    canvas.disc((x - 0.08 * size, y - 0.08 * size), 0.85 * size, main)
    canvas.disc((x - 0.35 * size, y - 0.35 * size), 0.22 * size, shade(main, 1.5))


def _draw_flower(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main, second, _ = colours
    x, y = at
    turn = float(canvas.rng.uniform(-0.5, 0.5))
    canvas.box(at, size, (-0.07, 0, 0.07, 1.6), (52, 110, 58))
    petals = int(canvas.rng.integers(5, 10))
    for angle in np.arange(petals) * 2 * np.pi / petals + turn:
        spot = (x + 0.6 * size * np.cos(angle), y + 0.6 * size * np.sin(angle))
        canvas.disc(spot, 0.42 * size, shade(main, canvas.rng.uniform(0.85, 1.1)))
    canvas.disc(at, 0.32 * size, shade(second, 0.3))


def _draw_star(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main, second, _ = colours
    turn = float(canvas.rng.uniform(-0.5, 0.5))
    canvas.shape(_star(int(canvas.rng.integers(5, 9)), 0.4), at, size, main, turn=turn)
    canvas.disc(at, 0.22 * size, second)


def _draw_gem(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main = colours[0]
    turn = float(canvas.rng.uniform(-0.5, 0.5))
    canvas.shape(_star(3, 0.95), at, size, main, turn=turn)
    canvas.shape(_star(3, 0.95), at, 0.6 * size, shade(main, 1.4), turn=turn + 0.5)


def _draw_leaf(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main = colours[0]
    turn = float(canvas.rng.uniform(0, 6.28))
    blade = [(-1.0, 0.0), (-0.5, -0.3), (0.1, -0.38), (1.0, 0.0), (0.1, 0.38), (-0.5, 0.3)]
    canvas.shape(blade, at, size, main, turn=turn)
    canvas.shape([(-1.3, 0.0), (1.0, -0.03), (1.0, 0.03)], at, size, shade(main, 0.6), turn=turn)


def _draw_fish(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main, second, third = colours
    x, y = at
    turn = float(canvas.rng.uniform(-0.5, 0.5))
    flip = 1 if canvas.rng.uniform() < 0.5 else -1
    canvas.shape([(-0.6, 0.0), (-1.5, -0.6), (-1.5, 0.6)], at, flip * size, second, turn=turn / 2)
    canvas.disc(at, size, main, squash=0.55)
    canvas.box(at, size, (-0.15, -0.5, 0.12, 0.5), shade(third, 1.2))
    canvas.disc((x + flip * 0.6 * size, y - 0.12 * size), 0.12 * size, (20, 20, 20))


def _draw_bird(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main = colours[0]
    turn = float(canvas.rng.uniform(-0.5, 0.5))
    wing = canvas.rng.uniform(0.1, 0.6)
    points = [(-1.0, -wing), (-0.4, -0.25), (0.0, 0.1), (0.4, -0.25), (1.0, -wing), (0.0, 0.32)]
    canvas.shape(points, at, size, main, turn=turn)


def _draw_butterfly(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main, second, _ = colours
    turn = float(canvas.rng.uniform(-0.5, 0.5))
    for side in (-1, 1):
        canvas.shape([(0, 0), (side * 0.9, -0.9), (side * 1.1, -0.1)], at, size, main, turn=turn)
        canvas.shape([(0, 0), (side * 0.9, 0.1), (side * 0.6, 0.8)], at, size, second, turn=turn)
    canvas.shape([(-0.07, -0.6), (0.07, -0.6), (0.07, 0.6), (-0.07, 0.6)], at, size, (30, 20, 30), turn=turn)


def _draw_kite(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main, second, third = colours
    x, y = at
    turn = float(canvas.rng.uniform(-0.5, 0.5))
    canvas.shape([(0, -1), (0.6, -0.2), (0, 1), (-0.6, -0.2)], at, size, main, turn=turn)
    canvas.shape([(0, -1), (0.6, -0.2), (0, -0.2)], at, size, second, turn=turn)
    canvas.pen.line((x, y + 0.9 * size, x - turn * 2 * size, y + 2.2 * size), fill=third, width=3)


def _draw_balloon(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main, second, _ = colours
    x, y = at
    canvas.box((x, y + 1.3 * size), size, (-0.2, 0, 0.2, 0.3), (110, 74, 44))
    canvas.shape([(-0.85, 0.4), (0.85, 0.4), (0.2, 1.3), (-0.2, 1.3)], at, size, main)
    for wide, fill in ((1.0, main), (0.6, second), (0.25, main)):
        canvas.pen.ellipse((x - wide * size, y - size, x + wide * size, y + 0.9 * size), fill=fill)


def _draw_boat(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main, second, _ = colours
    canvas.shape([(-1, 0), (1, 0), (0.65, 0.35), (-0.7, 0.35)], at, size, (92, 58, 38))
    canvas.shape([(0.05, -1.6), (0.05, -0.1), (0.9, -0.1)], at, size, main)
    canvas.shape([(-0.05, -1.4), (-0.05, -0.1), (-0.7, -0.1)], at, size, second)


def _draw_pine(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main = colours[0]
    canvas.box(at, size, (-0.09, 0.2, 0.09, 0.7), (84, 58, 40))
    for step in range(3):
        tier = [(0.0, -1.2 + 0.45 * step), (0.4 + 0.15 * step, 0.45 * step - 0.3)]
        canvas.shape([*tier, (-tier[1][0], tier[1][1])], at, size, shade(main, 0.9 + 0.1 * step))


def _draw_cactus(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main = colours[0]
    for corners in ((-0.2, -1, 0.2, 0.8), (-0.75, -0.1, -0.2, 0.15), (-0.75, -0.6, -0.5, 0.1),
                    (0.2, -0.35, 0.8, -0.1), (0.55, -0.8, 0.8, -0.15)):  # fmt: skip
        canvas.box(at, size, corners, main)
    canvas.box(at, size, (-0.05, -0.95, 0.05, 0.8), shade(main, 1.25))


def _draw_mushroom(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main, second, _ = colours
    x, y = at
    canvas.box(at, size, (-0.22, 0, 0.22, 0.8), (238, 228, 205))
    canvas.pen.pieslice((x - size, y - 0.9 * size, x + size, y + 0.9 * size), 180, 360, fill=main)
    for spot in canvas.rng.uniform(-0.6, 0.6, 4):
        canvas.disc(
            (x + spot * size, y - (0.6 - abs(spot)) * size - 0.1 * size), 0.1 * size, shade(second, 1.6)
        )


def _draw_house(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main, second, _ = colours
    canvas.box(at, size, (-0.6, -0.9, 0.6, 0.7), main)
    canvas.shape([(-0.75, -0.9), (0, -1.5), (0.75, -0.9)], at, size, (150, 70, 50))
    for column in (-0.4, 0.1):
        for row in (-0.7, -0.1):
            canvas.box(at, size, (column, row, column + 0.3, row + 0.35), shade(second, 0.45))


def _draw_tower(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main, second, third = colours
    tall = canvas.rng.uniform(1.2, 2.6)
    canvas.box(at, size, (-0.42, -tall, 0.42, 3.0), shade(main, 0.8))
    for row in np.arange(-tall + 0.15, 0.8, 0.28):
        for column in (-0.3, -0.05, 0.2):
            if canvas.rng.uniform() < 0.55:
                canvas.box(at, size, (column, row, column + 0.13, row + 0.14), blend(third, second, 0.3))


def _draw_lighthouse(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main, second, third = colours
    for step in range(5):
        wide = 0.3 - 0.03 * step
        fill = second if step % 2 else main
        canvas.box(at, size, (-wide, 0.9 - 0.45 * (step + 1), wide, 0.9 - 0.45 * step), fill)
    canvas.box(at, size, (-0.2, -1.6, 0.2, -1.35), (255, 224, 120))
    canvas.shape([(-0.28, -1.6), (0, -1.9), (0.28, -1.6)], at, size, third)


def _draw_car(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main = colours[0]
    x, y = at
    canvas.shape([(-0.6, -0.1), (-0.35, -0.55), (0.35, -0.55), (0.65, -0.1)], at, size, shade(main, 0.7))
    canvas.box(at, size, (-1, -0.12, 1, 0.3), main)
    for wheel in (-0.55, 0.55):
        canvas.disc((x + wheel * size, y + 0.3 * size), 0.24 * size, (25, 25, 28))
        canvas.disc((x + wheel * size, y + 0.3 * size), 0.1 * size, (190, 190, 195))


def _draw_cup(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main = colours[0]
    x, y = at
    canvas.disc((x, y + 0.75 * size), 1.1 * size, shade(main, 0.85), squash=0.22)
    canvas.pen.arc(
        (x + 0.35 * size, y - 0.3 * size, x + 1.15 * size, y + 0.4 * size), 250, 110, fill=main, width=9
    )
    canvas.shape([(-0.75, -0.6), (0.75, -0.6), (0.5, 0.75), (-0.5, 0.75)], at, size, main)
    canvas.disc((x, y - 0.6 * size), 0.75 * size, (70, 42, 28), squash=0.25)


def _draw_jellyfish(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main, second, _ = colours
    x, y = at
    for hair in np.linspace(-0.7, 0.7, 6):
        bend = canvas.rng.uniform(-0.4, 0.4) * size
        canvas.pen.line((x + hair * size, y, x + hair * size + bend, y + 1.7 * size), fill=second, width=4)
    canvas.pen.pieslice((x - size, y - size, x + size, y + size), 180, 360, fill=main)
    canvas.disc(at, size, shade(main, 1.15), squash=0.16)


def _draw_note(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main = colours[0]
    x, y = at
    canvas.disc(at, size, main, squash=0.75)
    up = -1 if canvas.rng.uniform() < 0.6 else 1
    canvas.box((x + 0.9 * size, y + min(0, up * 3.2) * size), size, (-0.12, 0, 0.12, 3.2), main)


def _draw_trace(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main, _, third = colours
    x, y = at
    for bend in canvas.rng.uniform(-1, 1, 2):
        middle = (x + bend * size, y)
        end = (middle[0] + abs(bend) * size, y + bend * size)
        canvas.pen.line([at, middle, end], fill=main, width=5)
        canvas.disc(end, 7, shade(main, 1.2))
    canvas.box(at, 0.35 * size, (-1, -0.5, 1, 0.5), third)


def _draw_bars(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    for index, tall in enumerate(canvas.rng.uniform(0.5, 1.9, 6)):
        left = (index - 3) / 3
        canvas.box(at, size, (left, 0.9 - tall, left + 0.27, 0.9), colours[index % 3])


def _draw_text(canvas: Canvas, at: Place, size: float, colours: list[Colour]) -> None:
    main, second, _ = colours
    x, y = at
    word = WORDS[int(canvas.rng.integers(len(WORDS)))]
    canvas.pen.text(at, word, fill=main, font=_font(max(8, int(size / 8) * 8)), anchor="mm")
    canvas.box((x, y + 0.55 * size), size, (-0.9, 0, 0.9, 0.06), second)


def _star(points: int, inner: float) -> list[Place]:
    """A star's outline: corners at radius 1, notches at radius `inner`."""
    angles = np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radii, angles, strict=True)]


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


DRAWERS: dict[Motif, Callable[[Canvas, Place, float, list[Colour]], None]] = {
    "dot": _draw_dot,
    "flower": _draw_flower,
    "star": _draw_star,
    "gem": _draw_gem,
    "leaf": _draw_leaf,
    "fish": _draw_fish,
    "bird": _draw_bird,
    "butterfly": _draw_butterfly,
    "kite": _draw_kite,
    "balloon": _draw_balloon,
    "boat": _draw_boat,
    "pine": _draw_pine,
    "cactus": _draw_cactus,
    "mushroom": _draw_mushroom,
    "house": _draw_house,
    "tower": _draw_tower,
    "lighthouse": _draw_lighthouse,
    "car": _draw_car,
    "cup": _draw_cup,
    "jellyfish": _draw_jellyfish,
    "note": _draw_note,
    "trace": _draw_trace,
    "bars": _draw_bars,
    "text": _draw_text,
}
