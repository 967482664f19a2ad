import io

import numpy as np
import pytest
from PIL import Image

from pipelines.demo.concepts import CONCEPTS
from pipelines.demo.edits import EDITS, edit, edit_file
from pipelines.demo.pictures import draw


@pytest.fixture(scope="module")
def picture():
    return draw(CONCEPTS[0], np.random.default_rng(5))


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_is_decided_by_its_rng(picture, kind):
    once = edit_file(png(picture), kind, np.random.default_rng(1))
    assert once == edit_file(png(picture), kind, np.random.default_rng(1))
    with Image.open(io.BytesIO(once)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_leaves_its_input_alone(picture, kind):
    before = picture.tobytes()
    edit(picture, kind, np.random.default_rng(2))
    assert picture.tobytes() == before


def test_flip_by_hand():
    image = Image.new("RGB", (2, 1))
    image.putdata([(255, 0, 0), (0, 0, 255)])
    flipped = edit(image, "flip", np.random.default_rng(0))
    assert [flipped.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 255), (255, 0, 0)]


def test_strengths_stay_in_their_ranges(picture):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        resized = edit(picture, "resize", rng)
        assert 0.49 < resized.width / picture.width < 1.51
        cropped = edit(picture, "crop", rng)
        assert 0.79 < cropped.width / picture.width < 0.96
        framed = edit(picture, "border", rng)
        assert framed.width > picture.width
        assert framed.height > picture.height


def test_a_border_holds_the_whole_picture(picture):
    framed = np.asarray(edit(picture, "border", np.random.default_rng(3)))
    height, width = picture.height, picture.width
    side = (framed.shape[1] - width) // 2
    top = framed.shape[0] - height - side
    assert np.array_equal(framed[top : top + height, side : side + width], np.asarray(picture))


def test_copies_are_made_upright():
    image = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif)
    with Image.open(
        io.BytesIO(edit_file(stream.getvalue(), "reencode", np.random.default_rng(0)))
    ) as upright:
        assert upright.size == (20, 40)
        assert 0x0112 not in upright.getexif()
