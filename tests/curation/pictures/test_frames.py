"""frames: an animation that begins with an empty frame is not one blank square with all its like."""

import io

import numpy as np
import pytest
from PIL import Image

from curation.pictures.decode import DecodeConfig, Decoded, decode
from curation.pictures.frames import MAX_FRAMES

FORMATS: tuple[tuple[str, dict[str, object]], ...] = (
    ("GIF", {}),
    ("WEBP", {"lossless": True}),
    ("PNG", {}),
    ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
)


def _animation(frames: list[Image.Image], file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    options |= {"save_all": True, "append_images": frames[1:], "duration": 100}
    frames[0].save(buffer, file_format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _decode(data: bytes, *, max_pixels: int = 64_000_000) -> Decoded:
    return decode(data, need_side_px=10_000, config=DecodeConfig(max_pixels=max_pixels))


def _scene(seed: int) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 3, (6, 8, 3), np.uint8) * 120
    return Image.fromarray(levels.repeat(10, axis=0).repeat(10, axis=1))


@pytest.mark.parametrize(("file_format", "options"), FORMATS)
@pytest.mark.parametrize("blank", [(0, 0, 0, 255), (255, 255, 255, 255), (0, 0, 0, 0), (3, 90, 7, 255)])
def test_the_first_frame_that_shows_something_is_taken(
    file_format: str, options: dict[str, object], blank: tuple[int, ...]
) -> None:
    seen = set()
    for seed in range(4):
        empty, scene = Image.new("RGBA", (80, 60), blank), _scene(seed)
        frames = [empty, Image.new("RGBA", (80, 60), (1, 1, 1, 255)), scene.convert("RGBA"), empty]
        decoded = _decode(_animation(frames, file_format, **options))
        assert decoded.pixels is not None
        assert decoded.warnings == ("first_frame_blank",)
        assert (decoded.width, decoded.height) == (80, 60)
        assert np.abs(decoded.pixels.astype(int) - np.asarray(scene)).mean() < 6
        seen.add(decoded.pixels.tobytes())
    assert len(seen) == 4


@pytest.mark.parametrize(("file_format", "options"), FORMATS)
def test_an_animation_that_shows_nothing_is_its_first_frame(
    file_format: str, options: dict[str, object]
) -> None:
    frames = [Image.new("RGB", (80, 60), (level, 0, 0)) for level in (0, 120, 250)]
    decoded = _decode(_animation(frames, file_format, **options))
    assert decoded.pixels is not None
    assert decoded.warnings == ("first_frame_blank",)
    assert (decoded.pixels < 4).all()
    still = io.BytesIO()
    frames[0].save(still, file_format)
    assert _decode(still.getvalue()).warnings == ()


@pytest.mark.parametrize(("file_format", "options"), FORMATS)
def test_what_is_looked_at_is_bounded(file_format: str, options: dict[str, object]) -> None:
    black, scene = Image.new("RGB", (80, 60)), _scene(0)
    late = [*(Image.new("RGB", (80, 60), (i % 2, 0, 0)) for i in range(MAX_FRAMES)), scene]
    few = [black, Image.new("RGB", (80, 60), (2, 0, 0)), scene]
    for frames, max_pixels in ((late, 64_000_000), (few, 80 * 60 * 2)):
        decoded = _decode(_animation(frames, file_format, **options), max_pixels=max_pixels)
        assert decoded.pixels is not None
        assert decoded.warnings == ("first_frame_blank",)
        assert (decoded.pixels < 4).all()


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_a_damaged_frame_behind_leaves_the_first_as_it_is(file_format: str) -> None:
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = _animation([Image.new("RGB", (80, 60)), _scene(0), _scene(1)], file_format, **options)
    for cut in range(len(data) // 3, len(data), 37):
        decoded = _decode(data[:cut])
        assert decoded.reason in (None, "truncated", "corrupt")
        alone = _decode(data[:cut], max_pixels=80 * 60)  # looks at no other frame
        assert alone.reason == decoded.reason
