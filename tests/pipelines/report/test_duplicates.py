"""Which components, and which of their members, the page shows."""

import numpy as np

from curation.dedup.edges import Edges
from pipelines.report.duplicates import MAX_MEMBERS, choose_components, choose_members


def edges(*rows: tuple[int, int, float]) -> Edges:
    a, b, score = (np.array([row[i] for row in rows]) for i in range(3))
    return Edges.of_kind("phash", a, b, score)


def test_components_shown_by_hand() -> None:
    sizes = np.array([2, 9, 0, 2, 5] + [2] * 40)
    weakest = np.full(45, 0.99)
    weakest[[3, 20]] = 0.91, 0.9
    weakest[30] = np.inf
    alarm = np.zeros(45, bool)
    alarm[[1, 25]] = True
    why = choose_components(sizes, weakest, alarm=alarm, seed=0)
    assert why[1] == why[25] == "a chain joins images that are not alike"
    assert why[4] == "one of the largest"
    assert why[3] == why[20] == "among the weakest edges"
    assert 2 not in why
    assert len(why) == 2 + 1 + 4 + 8
    assert why == choose_components(sizes, weakest, alarm=alarm, seed=0)


def test_members_lead_with_representative_weakest_link_and_hub() -> None:
    star = edges(*[(10, b, 0.99) for b in range(40, 60)], (40, 70, 0.91), (500, 501, 0.5))
    rows = np.array([*range(59, 40, -1), 70, 40, 10, 99])
    members = choose_members(rows, star, leader=99)
    assert members[:4] == [99, 40, 70, 10]
    assert len(members) == len(set(members)) == MAX_MEMBERS
    assert 500 not in members
    assert choose_members(rows, star, leader=99, first=[55, 41])[:4] == [99, 55, 41, 40]
    assert choose_members(np.array([4, 5]), Edges.joined([]), leader=None) == [4, 5]
