import math

import pyarrow as pa
import pytest
from rich.console import Console

from curation.schema import LINEAGE
from pipelines.demo.score import TRUTH, Share, effective_number, failures, score, scores_table

# (pool, key, concept, kind, parent_pool, parent_key)
TRUTH_ROWS = [
    ("trusted", "t1", "cats", "original", None, None),
    ("trusted", "t2", "dogs", "original", None, None),
    ("evaluation", "h1", "cats", "original", None, None),
    ("evaluation", "h2", "dogs", "original", None, None),
    ("web", "o1", "cats", "original", None, None),
    ("web", "o2", "dogs", "original", None, None),
    ("web", "o3", "cars", "original", None, None),
    ("web", "o4", "cats", "original", None, None),
    ("web", "e1", "cats", "exact", "trusted", "t1"),
    ("web", "r1", "dogs", "reencode", "web", "o2"),
    ("web", "r2", "cars", "reencode", "web", "o3"),
    ("web", "c1", "cats", "crop", "web", "o4"),
    ("web", "l1", "cats", "leak_exact", "evaluation", "h1"),
    ("web", "l2", "dogs", "leak_reencode", "evaluation", "h2"),
    ("web", "b1", None, "broken_empty", None, None),
    ("web", "b2", None, "broken_truncated", None, None),
]
# (pool, key, decision, stage, reason, by_pool, by_key, component)
LINEAGE_ROWS = [
    ("trusted", "t1", "kept", "select", "curated", None, None, 0),
    ("trusted", "t2", "kept", "select", "curated", None, None, None),
    ("evaluation", "h1", "dropped", "select", "holdout", None, None, None),
    ("evaluation", "h2", "dropped", "select", "holdout", None, None, None),
    ("web", "o1", "kept", "select", "retrieved_by_sample", "trusted", "t1", None),
    ("web", "o2", "dropped", "dedup", "near_copy", "web", "r1", 9),  # its copy survives: right
    ("web", "o3", "kept", "select", "retrieved_by_sample", "trusted", "t2", None),
    ("web", "o4", "dropped", "retrieve", "not_retrieved", None, None, None),
    ("web", "e1", "dropped", "dedup", "exact_copy", "trusted", "t1", 0),
    ("web", "r1", "kept", "select", "retrieved_by_sample", "trusted", "t2", 9),
    ("web", "r2", "dropped", "retrieve", "not_retrieved", None, None, None),  # missed
    ("web", "c1", "dropped", "dedup", "near_copy", "web", "o1", 4),  # of another picture: wrong
    ("web", "l1", "dropped", "decontaminate", "leaks_holdout", "evaluation", "h1", None),
    ("web", "l2", "dropped", "decontaminate", "leaks_holdout", "evaluation", "h1", None),  # wrong name
    ("web", "b1", "dropped", "describe", "empty", None, None, None),
    ("web", "b2", "dropped", "describe", "not_an_image", None, None, None),  # wrong reason
]


def make_truth(rows=TRUTH_ROWS):
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip(TRUTH.names, map(list, columns), strict=True)), schema=TRUTH)


def make_lineage(rows=LINEAGE_ROWS):
    given = ("pool", "key", "decision", "stage", "reason", "by_pool", "by_key", "component")
    blank = dict.fromkeys(LINEAGE.names) | {"uri": "file"}
    return pa.Table.from_pylist([blank | dict(zip(given, row, strict=True)) for row in rows], schema=LINEAGE)


@pytest.fixture(scope="module")
def scores():
    return score(make_truth(), make_lineage())


def test_recall_of_copies_by_hand(scores):
    assert scores.copies == {"exact": Share(1, 1), "reencode": Share(1, 2), "crop": Share(0, 1)}


def test_precision_of_drops_by_hand(scores):
    assert scores.drops == {"original": Share(1, 1), "exact": Share(1, 1), "crop": Share(0, 1)}


def test_leaks_by_hand(scores):
    assert scores.leaks == {"leak_exact": Share(1, 1), "leak_reencode": Share(1, 1)}
    assert scores.leaks_named == Share(1, 2)
    assert scores.leak_drops == Share(2, 2)


def test_broken_by_hand(scores):
    assert scores.broken == {"broken_empty": Share(1, 1), "broken_truncated": Share(0, 1)}


def test_retrieval_by_hand(scores):
    # Came as far as retrieval: o1 cats, o3 cars, o4 cats, r1 dogs, r2 cars; taken: o1, o3, r1.
    assert scores.retrieved == Share(2, 3)
    assert scores.retrievable == Share(2, 3)


def test_balance_by_hand(scores):
    # Trusted concepts of the pool: cats o1 o4 e1 c1 l1, dogs o2 r1 l2; kept: cats o1, dogs r1.
    entropy = -(5 / 8 * math.log(5 / 8) + 3 / 8 * math.log(3 / 8))
    assert scores.num_trusted_concepts == 2
    assert scores.balance_before == pytest.approx(math.exp(entropy))
    assert scores.balance_after == pytest.approx(2.0)


def test_failures_name_what_missed_its_bar(scores):
    (only,) = failures(scores)
    assert "re-encoded copies found: 1 of 2" in only


def test_nothing_measured_is_a_failure():
    rows = [row for row in TRUTH_ROWS if row[3] == "original"]
    names = {row[:2] for row in rows}
    empty = score(make_truth(rows), make_lineage([row for row in LINEAGE_ROWS if row[:2] in names]))
    assert len(failures(empty)) == 3


def test_leak_through_a_copy_counts_as_caught():
    truth = [*TRUTH_ROWS, ("web", "l3", "cats", "leak_resize", "evaluation", "h1")]
    lineage = [*LINEAGE_ROWS, ("web", "l3", "dropped", "dedup", "near_copy", "web", "l1", 12)]
    scores = score(make_truth(truth), make_lineage(lineage))
    assert scores.leaks["leak_resize"] == Share(1, 1)
    assert scores.leaks_named == Share(2, 3)


def test_pairs_rejected_before_dedup_are_not_counted():
    truth = [*TRUTH_ROWS, ("web", "x1", "cats", "blur", "web", "o4")]
    lineage = [*LINEAGE_ROWS, ("web", "x1", "dropped", "judge", "low_information", None, None, None)]
    assert "blur" not in score(make_truth(truth), make_lineage(lineage)).copies


def test_a_missing_lineage_row_raises():
    with pytest.raises(KeyError):
        score(make_truth(), make_lineage(LINEAGE_ROWS[:-1]))


@pytest.mark.parametrize("num", [1, 2, 7])
def test_effective_number_of_equal_counts_is_their_number(num):
    assert effective_number(dict.fromkeys(map(str, range(num)), 5)) == pytest.approx(num)


def test_effective_number_of_nothing_is_zero():
    assert effective_number({"a": 0}) == 0.0


def test_table_shows_every_section(scores):
    console = Console(width=140)
    with console.capture() as shown:
        console.print(scores_table(scores))
    text = shown.get()
    assert "reencode" in text
    assert "50.0%" in text
    assert "of 2" in text
