"""A face that detectors find."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def draw_face(side: int = 320, face: int = 150) -> np.ndarray:
    """Dark eyes and brows, a bright nose and cheeks, a mouth: what the cascade goes by."""
    image = Image.new("L", (side, side), 90)
    draw, c, u = ImageDraw.Draw(image), side / 2, face / 100
    draw.ellipse((c - 50 * u, c - 65 * u, c + 50 * u, c + 65 * u), fill=205)
    draw.pieslice((c - 54 * u, c - 72 * u, c + 54 * u, c + 20 * u), 180, 360, fill=50)
    draw.ellipse((c - 46 * u, c - 48 * u, c + 46 * u, c + 40 * u), fill=205)
    for sign in (-1, 1):
        x = c + sign * 21 * u
        draw.rectangle((x - 13 * u, c - 27 * u, x + 13 * u, c - 22 * u), fill=70)
        draw.ellipse((x - 13 * u, c - 20 * u, x + 13 * u, c - 6 * u), fill=110)
        draw.ellipse((x - 6 * u, c - 18 * u, x + 6 * u, c - 7 * u), fill=25)
    draw.rectangle((c - 5 * u, c - 15 * u, c + 5 * u, c + 14 * u), fill=225)
    draw.line((c - 9 * u, c + 16 * u, c + 9 * u, c + 16 * u), fill=120, width=int(3 * u))
    draw.ellipse((c - 20 * u, c + 28 * u, c + 20 * u, c + 38 * u), fill=105)
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(2.0 * u)))
    return np.repeat(soft[:, :, None], 3, axis=2)
