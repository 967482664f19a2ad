"""phash: imagehash's bits, and how far DCT scaling moves them."""

import io
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image

from curation.describe.decode import DecodeConfig, decode
from curation.describe.phash import grey32, phash


def test_first_bit_is_the_constant_term() -> None:
    # A flat grey picture: every frequency but the constant is 0, which is also the median.
    grey = np.full((2, 32, 32), 100, np.uint8)
    grey[1] = 0
    assert phash(grey).tolist() == [1 << 63, 0]


def test_ramp_by_hand() -> None:
    # Brighter from left to right: row 0 of the spectrum alone is not 0. Its odd waves are negative (the
    # cosine starts high where the ramp is low), the even ones 0 by symmetry; the median of the 64 is 0.
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8) * 8, (32, 32))
    rows = np.stack([ramp, ramp[:, ::-1]])
    assert [f"{value:016x}" for value in phash(rows)] == ["8000000000000000", "d500000000000000"]


def test_equals_imagehash_on_random_pictures() -> None:
    rng = np.random.default_rng(0)
    pictures = [
        rng.integers(0, 256, (rng.integers(9, 90), rng.integers(9, 90), 3), np.uint8) for _ in range(200)
    ]
    ours = phash(np.stack([grey32(picture) for picture in pictures]))
    for picture, value in zip(pictures, ours, strict=True):
        assert f"{value:016x}" == str(imagehash.phash(Image.fromarray(picture)))


def test_rows_do_not_depend_on_their_batch() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (67, 32, 32), np.uint8)
    whole = phash(grey)
    assert np.array_equal(whole, np.concatenate([phash(grey[i : i + 1]) for i in range(67)]))
    assert np.array_equal(whole[5:40], phash(grey[5:40]))
    assert phash(grey[:0]).shape == (0,)


def _real_pictures(shared_dir: Path, num: int) -> list[bytes]:
    files = sorted((shared_dir / "real" / "pool").rglob("*.jpg"))
    rng = np.random.default_rng(2)
    return [files[i].read_bytes() for i in rng.choice(len(files), num, replace=False)]


def _imagehash_of(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return int(str(imagehash.phash(image)), 16)


def _our_hash(data: bytes, need_side_px: int) -> int:
    decoded = decode(data, need_side_px=need_side_px, config=DecodeConfig())
    assert decoded.pixels is not None
    return int(phash(grey32(decoded.pixels)[None])[0])


@pytest.mark.parametrize(
    ("enlarge", "need_side_px"), [(1.0, 224), (2.3, 224), (1.0, 64), (1.0, 32), (3.7, 64)]
)
def test_distance_to_imagehash_at_full_resolution(
    shared_dir: Path, enlarge: float, need_side_px: int
) -> None:
    table = np.zeros(65, int)
    for original in _real_pictures(shared_dir, 120):
        data = original
        if enlarge != 1:
            with Image.open(io.BytesIO(data)) as image:
                size = (round(image.width * enlarge), round(image.height * enlarge))
                buffer = io.BytesIO()
                image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
            data = buffer.getvalue()
        table[(_imagehash_of(data) ^ _our_hash(data, need_side_px)).bit_count()] += 1
    counts = {bits: int(num) for bits, num in enumerate(table) if num}
    print(f"enlarged {enlarge} x, {need_side_px} px needed: pictures by bits of distance {counts}")
    assert table[:5].sum() >= 0.99 * table.sum()
