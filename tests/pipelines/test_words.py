"""Words and numbers as people read them."""

from curation.printed import visible
from curation.schema import REASONS, STAGES
from pipelines.words import MEANING, STAGE_VERB, counted, percent, seconds, shortened, size


def test_every_reason_and_stage_has_words() -> None:
    assert set(MEANING) == {reason for stage in STAGES for reason in REASONS[stage]}
    assert set(STAGE_VERB) == set(STAGES)


def test_words_by_hand() -> None:
    assert [percent(0, 5), percent(5, 5), percent(1, 3), percent(1, 10**5), percent(1, 0)] == [
        "0 %",
        "100 %",
        "33 %",
        "< 0.1 %",
        "–",
    ]
    assert percent(99_999, 100_000) == "> 99.9 %"
    assert [size(999), size(1500), size(2 * 10**12)] == ["999 bytes", "1.5 kB", "2.0 TB"]
    assert [seconds(3.21), seconds(600), seconds(36_000)] == ["3.2 s", "10 min", "10.0 h"]
    assert [counted(1, "shard"), counted(2000, "shard")] == ["1 shard", "2,000 shards"]
    assert shortened("abcdefghijklmnop.jpg", 9) == "abcd….jpg"
    assert visible("a\x00\u202e\u2028é→.jpg") == r"a\u0000\u202e\u2028é→.jpg"
