"""Runs of items that close once they are large enough."""

from curation.runs import batches


def test_a_run_closes_once_it_is_large_enough():
    items = ["a", "", "bb", "c", "", "dddd", ""]
    assert list(batches(items, size=len, least=3)) == [["a", "", "bb"], ["c", "", "dddd"], [""]]
    assert list(batches([], size=len, least=3)) == []
