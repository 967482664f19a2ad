import numpy as np
import pyarrow as pa
import pytest

from curation.errors import ConfigError
from curation.schema import HITS, KEPT_REASONS, REASONS
from curation.select import OUTCOMES, BalancedSampling, SelectConfig, Selection, SelectionRows, select


def hits_of(*entries: tuple) -> pa.Table:
    """Hits from (row, query, score) or (row, query, score, method)."""
    full = [(*entry, "sample")[:4] for entry in entries]
    names = ("row", "query", "score", "method")
    columns = {name: [entry[i] for entry in full] for i, name in enumerate(names)} | {"rank": [0] * len(full)}
    return pa.table([pa.array(columns[f.name], f.type) for f in HITS], schema=HITS)


def rows_of(roles: str, *, dead=(), id_rank=None, survivor_rank=None) -> SelectionRows:
    """One letter a row: c(urated), q(uery only: curated, and not included), u(ncurated), h(oldout)."""
    letters = np.array(list(roles))
    every = np.arange(len(letters))
    alive = np.ones(len(letters), bool)
    alive[list(dead)] = False
    return SelectionRows(
        is_curated=(letters == "c") | (letters == "q"),
        is_uncurated=letters == "u",
        is_included=letters == "c",
        alive=alive,
        id_rank=every if id_rank is None else np.array(id_rank),
        survivor_rank=every if survivor_rank is None else np.array(survivor_rank),
    )


def reasons(selection: Selection) -> list[str | None]:
    return [OUTCOMES[code].reason if OUTCOMES[code] else None for code in selection.outcome]


def test_every_outcome_by_hand():
    rows = rows_of("ccuuuuh", dead=[5])
    hits = hits_of((2, 0, 0.5), (2, 1, 0.8), (3, 1, 0.9, "cluster"), (5, 0, 1.0))
    selection = select({"anchors": hits}, rows, config=SelectConfig())
    assert reasons(selection) == [
        "curated",
        "curated",
        "retrieved_by_sample",
        "retrieved_by_cluster",
        "not_retrieved",
        None,
        "holdout",
    ]
    assert selection.by.tolist() == [-1, -1, 1, 1, -1, -1, -1]
    np.testing.assert_array_equal(selection.score, [np.nan, np.nan, 0.8, 0.9, np.nan, np.nan, np.nan])
    assert selection.rows().tolist() == [0, 1, 2, 3]


def test_outcomes_are_words_of_the_schema():
    for outcome in OUTCOMES[1:]:
        words = REASONS[outcome.stage] if outcome.origin is None else KEPT_REASONS
        assert outcome.reason in words


def test_equal_scores_go_to_the_query_with_the_smaller_id():
    rows = rows_of("cccu", id_rank=[5, 2, 3, 0])
    selection = select({"a": hits_of((3, 0, 0.7), (3, 1, 0.7), (3, 2, 0.7))}, rows, config=SelectConfig())
    assert selection.by[3] == 1


def test_hits_without_a_query_lose_ties_and_name_nobody():
    rows = rows_of("cuu")
    hits = hits_of((1, None, 0.7, "cluster"), (1, 0, 0.7), (2, None, 0.6, "cluster"))
    selection = select({"a": hits}, rows, config=SelectConfig())
    assert selection.by.tolist() == [-1, 0, -1]
    assert reasons(selection)[1:] == ["retrieved_by_sample", "retrieved_by_cluster"]


def test_cap_keeps_the_best_scores_then_the_smallest_ids():
    rows = rows_of("cuuuu", id_rank=[0, 9, 8, 7, 6])
    hits = hits_of((1, 0, 0.5), (2, 0, 0.5), (3, 0, 0.5), (4, 0, 0.4))
    selection = select({"a": hits}, rows, config=SelectConfig(max_images=2))
    assert reasons(selection) == [
        "curated",
        "over_cap",
        "retrieved_by_sample",
        "retrieved_by_sample",
        "over_cap",
    ]
    assert selection.by.tolist() == [-1, 0, 0, 0, 0]


def test_an_image_over_one_pools_cap_may_come_through_another():
    rows = rows_of("ccuuu")
    hits = {"a": hits_of((2, 0, 0.9), (3, 0, 0.8), (4, 0, 0.7)), "b": hits_of((3, 1, 0.6))}
    selection = select(hits, rows, config=SelectConfig(max_images_by_pool={"a": 1}))
    assert reasons(selection)[2:] == ["retrieved_by_sample", "retrieved_by_sample", "over_cap"]
    assert selection.by.tolist()[2:] == [0, 1, 0]
    assert selection.score.tolist()[2:] == [0.9, 0.6, 0.7]


def test_a_cap_for_an_unknown_pool_is_an_error():
    with pytest.raises(ConfigError, match="names what is no curated pool"):
        select({"a": hits_of()}, rows_of("c"), config=SelectConfig(max_images_by_pool={"b": 1}))


def test_equal_ids_collapse_to_the_first_survivor():
    rows = rows_of("cuuu", id_rank=[4, 1, 1, 4], survivor_rank=[0, 3, 2, 1])
    selection = select({"a": hits_of(*[(row, 0, 0.9) for row in (1, 2, 3)])}, rows, config=SelectConfig())
    assert reasons(selection) == ["curated", "equal_id", "retrieved_by_sample", "equal_id"]
    assert selection.by.tolist() == [-1, 2, 0, 0]
    assert selection.score.tolist()[1::2] == [1.0, 1.0]


def test_an_equal_image_that_was_not_retrieved_takes_nothing_away():
    rows = rows_of("cuu", id_rank=[0, 1, 1])
    selection = select({"a": hits_of((2, 0, 0.9))}, rows, config=SelectConfig())
    assert reasons(selection) == ["curated", "not_retrieved", "retrieved_by_sample"]


def test_the_cap_counts_distinct_images():
    rows = rows_of("cuuu", id_rank=[0, 1, 1, 2])
    hits = hits_of((1, 0, 0.9), (2, 0, 0.9), (3, 0, 0.5))
    selection = select({"a": hits}, rows, config=SelectConfig(max_images=2))
    assert selection.rows().tolist() == [0, 1, 3]


def test_without_a_curated_pool_everything_alive_is_sampled():
    rows = rows_of("uuhu", dead=[1], id_rank=[3, 0, 1, 2])
    assert reasons(select({}, rows, config=SelectConfig())) == ["sampled", None, "holdout", "sampled"]
    capped = select({}, rows, config=SelectConfig(max_images=1))
    assert capped.rows().tolist() == [3]


def test_a_curated_pool_that_found_nothing_is_not_no_curated_pool():
    selection = select({"a": hits_of()}, rows_of("cu"), config=SelectConfig())
    assert reasons(selection) == ["curated", "not_retrieved"]


def test_curated_images_may_serve_as_queries_alone():
    rows = rows_of("quc", id_rank=[0, 0, 1])
    selection = select({"a": hits_of((1, 0, 1.0))}, rows, config=SelectConfig())
    assert reasons(selection) == ["query_only", "retrieved_by_sample", "curated"]


def first_of(candidates: np.ndarray, num_images: int) -> np.ndarray:
    """A sampler that takes the first rows."""
    return np.arange(len(candidates)) < num_images


def sampling(num_images: int, **fields: object) -> SelectConfig:
    return SelectConfig.model_validate({"balanced": BalancedSampling(num_images=num_images)} | fields)


def test_a_balanced_sample_of_distinct_images():
    rows = rows_of("uuhuuu", dead=[1], id_rank=[3, 0, 1, 2, 3, 4])
    selection = select({}, rows, config=sampling(2), sampler=first_of)
    assert reasons(selection) == ["sampled", None, "holdout", "sampled", "equal_id", "over_cap"]
    assert np.isnan(selection.score[[0, 3, 5]]).all()


def test_a_sample_is_drawn_from_what_nothing_brought_in():
    rows = rows_of("cuuuu")
    hits = {"a": hits_of((1, 0, 0.9), (2, 0, 0.8), (3, 0, 0.7))}
    config = sampling(1, max_images_by_pool={"a": 1})
    selection = select(hits, rows, config=config, sampler=first_of)
    assert reasons(selection) == ["curated", "retrieved_by_sample", "sampled", "over_cap", "over_cap"]
    assert selection.by.tolist() == [-1, 0, -1, 0, -1]
    np.testing.assert_array_equal(selection.score, [np.nan, 0.9, np.nan, 0.7, np.nan])


@pytest.mark.parametrize(("max_images", "num_sampled"), [(9, 3), (3, 1), (2, 0), (1, 0)])
def test_a_cap_leaves_the_sample_what_retrieval_does_not_fill(max_images, num_sampled):
    hits = {"a": hits_of((1, 0, 0.9), (2, 0, 0.8))}
    config = sampling(3, max_images=max_images)
    selection = select(hits, rows_of("cuuuuuuu"), config=config, sampler=first_of)
    assert reasons(selection).count("sampled") == num_sampled
    assert reasons(selection).count("retrieved_by_sample") == min(2, max_images)


def test_no_rows_at_all():
    assert len(select({}, rows_of(""), config=SelectConfig()).rows()) == 0


@pytest.mark.parametrize("trial", range(5))
def test_matches_a_plain_loop(trial):
    rng = np.random.default_rng(trial)
    num_rows, cap = 300, 40
    rows = rows_of(
        "".join(rng.choice(list("cuuuuh"), num_rows)),
        dead=np.flatnonzero(rng.random(num_rows) < 0.1),
        id_rank=rng.integers(200, size=num_rows),
        survivor_rank=rng.permutation(num_rows),
    )
    curated = np.flatnonzero(rows.is_curated)
    entries = [
        (int(rng.integers(num_rows)), int(rng.choice(curated)), float(rng.integers(10) / 10))
        for _ in range(400)
    ]
    selection = select({"a": hits_of(*entries)}, rows, config=SelectConfig(max_images=cap))

    best: dict[int, tuple] = {}
    for row, query, score in entries:
        if rows.alive[row] and rows.is_uncurated[row]:
            key = (-score, rows.id_rank[query], query)
            best[row] = min(best.get(row, key), key)
    chosen = set(best) | set(np.flatnonzero(rows.is_curated & rows.alive).tolist())
    stays = {}
    for row in sorted(chosen, key=lambda row: rows.survivor_rank[row]):
        stays.setdefault(rows.id_rank[row], row)
    kept = [row for row in stays.values() if row in best]
    kept.sort(key=lambda row: (best[row][0], rows.id_rank[row]))
    expected = set(kept[:cap]) | {row for row in stays.values() if row not in best}
    assert selection.rows().tolist() == sorted(expected)
    for row in kept[:cap]:
        assert (-selection.score[row], selection.by[row]) == (best[row][0], best[row][2])
    assert (selection.outcome[~rows.alive] == 0).all()
    assert (selection.outcome[rows.alive] != 0).all()
