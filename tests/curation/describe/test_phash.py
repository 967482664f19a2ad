"""phash: imagehash's bits, and how far DCT scaling moves them."""

import io
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image

from curation.describe.phash import CERTAIN_MARGIN, MIN_CERTAIN_BITS, certain_bits, grey32, phash
from curation.pictures.decode import DecodeConfig, decode


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


def test_certain_bits_by_hand() -> None:
    flat = np.full((32, 32), 100, np.uint8)
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8) * 8, (32, 32))
    faint = np.broadcast_to(np.arange(32, dtype=np.uint8) // 16, (32, 32))  # one level more on the right
    # Of a flat picture the constant term alone is no 0; of a ramp the odd waves from left to right are not:
    # all but the seventh are far from it, for lengths fall with the square of the wave's number.
    spectrum = [
        2 * 2 * 32 * float((ramp[0] * np.cos(np.pi * k * (2 * np.arange(32) + 1) / 64)).sum())
        for k in range(8)
    ]
    num_far = sum(abs(value) >= CERTAIN_MARGIN for value in spectrum)
    assert certain_bits(np.stack([flat, flat * 0, ramp])).tolist() == [1, 0, num_far]
    assert certain_bits(faint[None]).tolist() == [5]


def test_noise_on_a_flat_picture_makes_few_bits_certain() -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, (50, 32, 32))
    assert certain_bits(np.rint(100 + noise).astype(np.uint8)).max() < MIN_CERTAIN_BITS / 4


def test_photographs_have_hashes_that_know_enough(shared_dir: Path) -> None:
    pictures = [
        decode(data, need_side_px=64, config=DecodeConfig()).pixels
        for data in _real_pictures(shared_dir, 300)
    ]
    bits = certain_bits(np.stack([grey32(pixels) for pixels in pictures if pixels is not None]))
    print(f"certain bits: least {bits.min()}, median {np.median(bits):.0f}")
    assert (bits >= MIN_CERTAIN_BITS).mean() >= 0.99
