"""Boxes of faces: sizes of the search, the way back to the original, the table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.describe.faces import FacesConfig, in_original, search_size, table_of_faces
from curation.schema import FACES


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((2000, 1500), (640, 480)),
        ((1500, 2000), (480, 640)),
        ((481, 480), (481, 480)),  # never larger
        ((300, 200), (300, 200)),
        ((8000, 960), (1920, 230)),  # a strip: its longer side bounds it
        ((8000, 3), (1920, 1)),
    ],
)
def test_search_sizes_by_hand(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert search_size(*size, side_px=480) == expected


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_a_search_is_bounded(width: int, height: int) -> None:
    found = search_size(width, height, side_px=100)
    assert min(found) <= 100
    assert max(found) <= 400
    assert found[0] <= width
    assert found[1] <= height


def test_boxes_in_the_original_by_hand() -> None:
    boxes = np.array([[10, 40, 20, 20, 0.5], [-5, 5, 10, 10, 0.75], [90, 90, 30, 5, 1]], np.float32)
    made = in_original(boxes, found_in=(100, 50), size=(200, 200))
    # Twice as wide, four times as high; cut to the picture; the third lies below it; from top to bottom.
    assert made.tolist() == [[0, 20, 10, 40, 0.75], [20, 160, 40, 40, 0.5]]


def test_the_order_of_detections_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    boxes = rng.integers(1, 9, (20, 5)).astype(np.float32)
    one, other = (in_original(b, found_in=(20, 20), size=(37, 21)) for b in (boxes, rng.permutation(boxes)))
    assert one.tobytes() == other.tobytes()


def test_table() -> None:
    one, none = np.arange(10, dtype=np.float32).reshape(2, 5), np.zeros((0, 5), np.float32)
    table = table_of_faces([none, one, none, one[:1]])
    assert table.schema == FACES
    assert table["row"].to_pylist() == [1, 1, 3]
    assert table["score"].to_pylist() == [4, 9, 4]
    assert table_of_faces([none]).num_rows == 0


def test_a_digest_that_was_cut_short_is_no_name() -> None:
    assert FacesConfig(model="/m/yunet.onnx@" + "A" * 64).sha256 == "a" * 64
    assert FacesConfig(model="/m/yunet.onnx").path == "/m/yunet.onnx"
    with pytest.raises(ValidationError, match=r"model[\s\S]*64 digits"):
        FacesConfig(model="/m/yunet.onnx@abc")
