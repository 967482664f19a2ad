import re
from typing import get_args

import numpy as np
import pytest

from curation.describe.phash import grey32, phash
from pipelines.demo.concepts import CONCEPTS, Layout, Motif, Scene
from pipelines.demo.pictures import draw


def test_the_table_is_well_formed():
    assert len({concept.name for concept in CONCEPTS}) == len(CONCEPTS) >= 36
    for concept in CONCEPTS:
        for colours in (concept.behind, concept.front):
            assert re.fullmatch(r"[0-9a-f]{6}( [0-9a-f]{6}){2}", colours)


def test_every_scene_layout_and_motif_is_used():
    assert {concept.scene for concept in CONCEPTS} == set(get_args(Scene))
    assert {concept.layout for concept in CONCEPTS} == set(get_args(Layout))
    assert {concept.motif for concept in CONCEPTS} == set(get_args(Motif))


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.name)
def test_a_picture_is_decided_by_its_rng(concept):
    picture = draw(concept, np.random.default_rng(7))
    assert picture.mode == "RGB"
    assert all(160 <= side <= 256 for side in picture.size)
    assert picture.tobytes() == draw(concept, np.random.default_rng(7)).tobytes()
    assert np.asarray(picture).std() > 10


def test_siblings_lie_further_apart_than_copies():
    """No two pictures of one concept may look like copies at the default radius of 6 bits."""
    for number, concept in enumerate(CONCEPTS):
        pictures = [draw(concept, np.random.default_rng([1, number, index])) for index in range(6)]
        hashes = phash(np.stack([grey32(np.asarray(picture)) for picture in pictures]))
        apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :]) + 64 * np.eye(len(hashes), dtype=int)
        assert apart.min() > 6, concept.name
