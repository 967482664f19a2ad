"""How a concept becomes a picture: its scene, its motifs, then light and grain."""

import numpy as np
from PIL import Image

from pipelines.demo.canvas import Canvas, Colour, Place, blend, shade
from pipelines.demo.concepts import Concept, Layout, Scene
from pipelines.demo.motifs import draw_motif


def draw(concept: Concept, rng: np.random.Generator) -> Image.Image:
    """Draw one picture of a concept: RGB, 160 to 256 px a side."""
    width, height = (int(side) for side in rng.integers(160, 257, 2))
    # Drawn at twice the size and halved, since Pillow draws without antialiasing.
    canvas = Canvas(2 * width, 2 * height, rng)
    behind, front = canvas.tint(concept.behind), canvas.tint(concept.front)
    _draw_scene(canvas, concept.scene, behind)
    count = int(rng.integers(concept.counts[0], concept.counts[1] + 1))
    for at, size in _places(canvas, concept.layout, count, concept.sizes):
        first = int(rng.integers(len(front)))
        draw_motif(canvas, concept.motif, at, size, colours=front[first:] + front[:first])
    return _light_and_grain(canvas.image.reduce(2), rng)


def _draw_scene(canvas: Canvas, scene: Scene, colours: list[Colour]) -> None:
    top, bottom, ground = colours
    rng = canvas.rng
    canvas.gradient(top, bottom)
    match scene:
        case "field":
            _ridge(canvas, canvas.horizon, 0.04, shade(ground, 0.85))
            _ridge(canvas, canvas.horizon + 0.12 * canvas.height, 0.04, ground)
        case "peaks":
            for step, share in enumerate((0.3, 0.6, 1.0)):
                level = canvas.horizon + (0.14 * step - 0.14) * canvas.height
                _ridge(canvas, level, 0.13 - 0.05 * step, shade(blend(top, ground, share), 0.9 - 0.05 * step))
        case "sea":
            _ridge(canvas, canvas.horizon, 0.0, ground)
            _strokes(canvas, canvas.horizon, [shade(ground, 1.25), shade(ground, 0.8)])
        case "night":
            moon = (canvas.width * rng.uniform(0.1, 0.9), canvas.height * rng.uniform(0.1, 0.35))
            canvas.disc(moon, canvas.side * rng.uniform(0.03, 0.09), (250, 245, 220))
            _ridge(canvas, canvas.height * rng.uniform(0.8, 0.95), 0.03, ground)
        case "deep":
            for x in rng.uniform(-0.2, 1.0, 4) * canvas.width:
                ray = [(0.0, 0.0), (0.25, 0.0), (0.7, 2.0), (0.3, 2.0)]
                canvas.shape(ray, (x, 0), canvas.side, shade(top, 1.08))
            _ridge(canvas, canvas.height * rng.uniform(0.84, 0.97), 0.03, ground)
        case "room":
            _ridge(canvas, canvas.horizon, 0.0, ground)
            canvas.box((0, canvas.horizon), canvas.side, (0, 0, 3, 0.03), shade(ground, 1.3))
        case "plain":
            for _ in range(3):
                at = (rng.uniform(0, canvas.width), rng.uniform(0, canvas.height))
                radius, share = canvas.side * rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.9)
                canvas.disc(at, radius, blend(top, ground, share))
        case "bricks":
            _courses(canvas, colours, ratio=2.4, joint=0.1)
        case "tiles":
            _courses(canvas, colours, ratio=1.0, joint=0.0)
        case "paper":
            _sheet(canvas, ground)
        case "cloth":
            _weave(canvas, colours)


def _ridge(canvas: Canvas, level: float, roughness: float, fill: Colour) -> None:
    """Fill everything below a wandering line."""
    heights = level + canvas.rng.normal(0, roughness, 9) * canvas.height
    across = np.linspace(0, canvas.width, 9)
    line = [(float(x), float(y)) for x, y in zip(across, heights, strict=True)]
    canvas.pen.polygon([(0, canvas.height), *line, (canvas.width, canvas.height)], fill=fill)


def _strokes(canvas: Canvas, level: float, fills: list[Colour]) -> None:
    """Short level strokes below a line: ripples on water."""
    for depth in canvas.rng.uniform(0.02, 1.0, 60):
        x = canvas.rng.uniform(-0.1, 1.0) * canvas.width
        y = level + depth * (canvas.height - level)
        long = canvas.side * (0.05 + 0.2 * depth)
        fill = fills[int(canvas.rng.integers(len(fills)))]
        canvas.pen.line((x, y, x + long, y), fill=fill, width=int(2 + 5 * depth))


def _courses(canvas: Canvas, colours: list[Colour], *, ratio: float, joint: float) -> None:
    """Bricks in courses (with joints, each course shifted), or the squares of a floor (none)."""
    high = canvas.side * canvas.rng.uniform(0.09, 0.17)
    start = canvas.rng.uniform(-high, 0, 2)
    if joint > 0:
        canvas.pen.rectangle((0, 0, canvas.width, canvas.height), fill=colours[2])
    for row in range(int(canvas.height / high) + 2):
        for column in range(int(canvas.width / high / ratio) + 2):
            shift = 0.5 * (row % 2) if joint > 0 else 0.0
            at = (start[0] + (column - shift) * high * ratio, start[1] + row * high)
            tone = canvas.rng.uniform() if joint > 0 else (row + column) % 2
            fill = shade(blend(colours[0], colours[1], tone), canvas.rng.uniform(0.92, 1.05))
            canvas.box(at, high, (joint, joint, ratio, 1.0), fill)


def _sheet(canvas: Canvas, fill: Colour) -> None:
    """Ruled paper: groups of five level lines."""
    gap = canvas.side * canvas.rng.uniform(0.025, 0.04)
    y = canvas.rng.uniform(0, 6) * gap
    while y < canvas.height:
        for line in range(5):
            canvas.pen.line((0, y + line * gap, canvas.width, y + line * gap), fill=fill, width=3)
        y += gap * canvas.rng.uniform(8, 12)


def _weave(canvas: Canvas, colours: list[Colour]) -> None:
    """Tartan: bands across, then thinner bands down, in the scene's colours."""
    sett = canvas.side * canvas.rng.uniform(0.22, 0.5)
    bands = [(float(at), float(wide)) for at, wide in canvas.rng.uniform((0, 0.03), (1, 0.22), (5, 2))]
    for down in (False, True):
        for repeat in range(-1, int(max(canvas.width, canvas.height) / sett) + 1):
            for index, (at, wide) in enumerate(bands):
                low, high = (repeat + at) * sett, (repeat + at + wide) * sett
                fill = shade(colours[(index + down) % 3], 0.85 + 0.25 * down)
                step = 4 if down else 1  # the second set shows as threads, over the first
                for line in np.arange(low, high, step):
                    ends = (line, 0, line, canvas.height) if down else (0, line, canvas.width, line)
                    canvas.pen.line(ends, fill=fill, width=2 if down else 1)


def _places(
    canvas: Canvas, layout: Layout, count: int, sizes: tuple[float, float]
) -> list[tuple[Place, float]]:
    """Where the motifs stand and how large they are, in pixels; the far ones first."""
    rng, width, height = canvas.rng, canvas.width, canvas.height
    common = rng.uniform(*sizes)  # pictures differ in scale more than the motifs of one picture do
    radii = canvas.side * np.clip(common * rng.uniform(0.7, 1.35, count), *sizes)
    across, down = rng.uniform(0.04, 0.96, count) * width, rng.uniform(0.04, 0.96, count) * height
    match layout:
        case "ground":
            depth = np.sort(rng.uniform(0.1, 0.95, count))
            down = canvas.horizon + depth * (height - canvas.horizon)
            radii = radii * (0.55 + 0.6 * depth)
        case "stand":
            across = (np.arange(count) + rng.uniform(0.3, 0.7, count)) / count * width
            down = height * rng.uniform(0.55, 0.8, count)
        case "grid":
            columns = max(1, round((count * width / height) ** 0.5))
            cell = width / columns
            across = (np.arange(count) % columns + 0.5) * cell
            down = (np.arange(count) // columns + rng.uniform(0.3, 0.7)) * cell
            radii = np.minimum(radii, 0.48 * cell)
        case "scatter":
            pass
    return [((float(x), float(y)), float(r)) for x, y, r in zip(across, down, radii, strict=True)]


def _light_and_grain(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Uneven light over the whole picture, then grain.

    The light is what makes siblings differ at low frequencies, where perceptual hashes look, as clouds and
    lamps do in photographs; without it flat pictures hash to coin flips.
    """
    width, height = image.size
    coarse = Image.fromarray(rng.normal(0, 14, (4, 4)).astype(np.float32)).resize(
        (9, 9), Image.Resampling.BICUBIC
    )
    cells = Image.fromarray(np.asarray(coarse) + rng.normal(0, 9, (9, 9)).astype(np.float32))
    light = np.asarray(cells.resize((width, height), Image.Resampling.BICUBIC))
    strength = int(rng.integers(2, 9))
    light = light + rng.integers(-strength, strength + 1, (height, width), dtype=np.int8)
    return Image.fromarray(np.clip(np.asarray(image) + light[..., None], 0, 255).astype(np.uint8))
