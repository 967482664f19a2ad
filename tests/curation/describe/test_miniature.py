"""Miniatures of drawn pictures: unlike ones never meet, and what re-encoding and resizing leave of them."""

import io

import numpy as np
import plain_pictures
import pytest
from PIL import Image, ImageDraw, ImageFont

from curation.describe import miniature
from curation.describe.miniature import make_miniature
from curation.describe.phash import MIN_CERTAIN_BITS, certain_bits, grey32
from curation.search.miniatures import FINE, LEAST_SCORE, NUM_BYTES, miniature_pairs, miniature_scores


def rows_of(pictures: list[Image.Image]) -> np.ndarray:
    made = [make_miniature(np.array(picture)) for picture in pictures]
    assert {len(row) for row in made} == {NUM_BYTES}
    return np.stack([np.frombuffer(row, np.uint8) for row in made])


def poor() -> dict[str, Image.Image]:
    """Those whose hashes know too little."""
    pictures = plain_pictures.all_unlike()
    grey = np.stack([grey32(np.array(picture)) for picture in pictures.values()])
    bits = dict(zip(pictures, certain_bits(grey), strict=True))
    return {name: picture for name, picture in pictures.items() if bits[name] < MIN_CERTAIN_BITS}


def test_no_two_unlike_pictures_meet() -> None:
    rows = rows_of(list(plain_pictures.all_unlike().values()))
    assert len(miniature_pairs(rows, rows, same=True).a) == 0


def test_what_is_finer_than_a_cell_has_a_digest_of_its_pixels() -> None:
    pictures = plain_pictures.patterns() | {
        name: plain_pictures.all_unlike()[name]
        for name in ("small A", "noise 0", "red", "nl", "dawn", "plus")
    }
    marks = dict(zip(pictures, rows_of(list(pictures.values()))[:, 0], strict=True))
    fine = {f"{kind} {width}" for kind in ("rows", "columns", "board") for width in (1, 2)}
    assert {name for name, mark in marks.items() if mark == FINE} == fine | {"small A", "noise 0"}
    again = rows_of([pictures["rows 2"], pictures["rows 2"].copy()])
    assert miniature_scores(again[:1], again[1:]).tolist() == [1.0]


def masks() -> list[np.ndarray]:
    """Of numbered classes, of two classes, and of a pale drawing on paper; three of each."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(3):
        classes = np.kron(rng.integers(0, 5, (8, 8)), np.ones((16, 16)))
        found += [classes, classes > 2, 236 + 4 * classes]
    return found


def below_a_bar() -> list[np.ndarray]:
    """Faint stripes, a board, and pages of grey letters, all below a black bar."""
    y, x = np.mgrid[:128, :128]
    found = [225 + 15 * (mask // 2 % 2) for mask in (x, y, x + y)]
    for text in ("lorem ipsum", "dolor sit amet", "sed tempor", "elit nec"):
        page = Image.new("L", (256, 256), 255)
        for line in range(12):
            ImageDraw.Draw(page).text((16, 40 + 17 * line), text, fill=225, font=ImageFont.load_default(14))
        found.append(np.array(page))
    for page in found:
        page[: len(page) // 8] = 0
    return found


@pytest.mark.parametrize("made", [masks, below_a_bar])
def test_what_is_faint_is_not_taken_for_nothing(made) -> None:
    pictures = [Image.fromarray(page.astype(np.uint8)).convert("RGB") for page in made()]
    rows = rows_of(pictures)
    assert len(miniature_pairs(rows, rows, same=True).a) == 0
    assert miniature_scores(rows, rows_of(pictures)).tolist() == [1.0] * len(rows)


def test_large_pictures_are_measured_in_strips() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((100, 140), (33, 200), (7, 90), (128, 64)):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        whole = miniature._variances(pixels)
        cell = pixels[: height // 32, : width // 32].reshape(-1, 3)
        if not (height % 32 or width % 32):
            assert whole[0, 0] == pytest.approx(cell.var(axis=0), abs=0.1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(miniature, "STRIP_PIXELS", 1)
            assert miniature._variances(pixels) == pytest.approx(whole, abs=0.1)


def as_jpeg(picture: Image.Image) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return Image.open(data).convert("RGB")


def halved(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("edit", "least"), [(as_jpeg, 0.8), (halved, 0.95)])
def test_a_copy_is_found(edit, least: float) -> None:
    pictures = poor()
    before, after = rows_of(list(pictures.values())), rows_of([edit(one) for one in pictures.values()])
    is_plain = before[:, 0] != FINE
    assert is_plain.sum() > 40
    found = miniature_scores(before, after)[is_plain] >= LEAST_SCORE
    print(f"{edit.__name__}: {found.sum()} of {len(found)} found")
    assert found.mean() >= least


def test_pixels_of_any_size() -> None:
    for size in ((1, 1), (1, 3000), (3000, 1), (2, 2), (15, 17)):
        assert len(make_miniature(np.zeros((*size, 3), np.uint8))) == NUM_BYTES
