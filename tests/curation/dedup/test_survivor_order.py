"""The order of survivors."""

import numpy as np

from curation.dedup.components import survivor_order


def test_survivor_order_by_hand():
    curated = np.array([False, True, False, False, False, False, False])
    area = np.array([900, 100, 900, 900, 900, 400, 900])
    num_bytes = np.array([10, 10, 20, 20, 20, 99, 20])
    ids = np.array([[0, 0], [9, 9], [2, 0], [1, 5], [1, 4], [0, 0], [1, 4]], np.uint64)
    rank = survivor_order(is_curated=curated, area_px=area, num_bytes=num_bytes, image_id=ids)
    # curated; then of 900 px and 20 bytes by id and row (4, 6, 3, 2); then fewer bytes; then less area
    assert np.argsort(rank).tolist() == [1, 4, 6, 3, 2, 0, 5]


def test_survivor_order_takes_ids_as_unsigned():
    ids = np.array([[1 << 63, 0], [1, 0]], np.uint64)
    same = np.array([5, 5])
    rank = survivor_order(is_curated=np.zeros(2, bool), area_px=same, num_bytes=same, image_id=ids)
    assert rank.tolist() == [1, 0]
