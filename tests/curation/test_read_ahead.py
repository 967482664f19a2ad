"""Reading ahead gives the bytes that were asked for, by fewer requests, within its bounds."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import storage
from curation.read_ahead import MAX_GAP_BYTES, MAX_SPAN_BYTES, Range, ReadAhead

DATA = bytes(range(251)) * 400


class Store:
    """A remote store that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[Range] = []
        self.most_at_once = self._now = 0
        self.wait_s = 0.0
        self.broken: set[int] = set()  # offsets that cannot be read
        self._lock = threading.Lock()

    def read(self, path: str, offset: int = 0, num_bytes: int | None = None) -> bytes:
        assert num_bytes is not None
        with self._lock:
            self.asked.append(Range(path, offset, num_bytes))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(self.wait_s)
        with self._lock:
            self._now -= 1
        if any(offset <= bad < offset + num_bytes for bad in self.broken):
            raise OSError("a broken disk")
        return (path[-1:].encode() + DATA)[offset : offset + num_bytes]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(storage, "read_bytes", made.read)
    return made


RANGES = st.lists(
    st.builds(
        Range, st.sampled_from(["s3://b/x", "s3://b/y"]), st.integers(0, 90_000), st.integers(0, 9_000)
    ),
    max_size=60,
)


@settings(max_examples=50, deadline=None)
@given(ranges=RANGES, max_bytes=st.integers(1, 50_000), threads=st.integers(1, 4), data=st.data())
def test_the_bytes_are_those_that_were_asked_for(
    ranges: list[Range], max_bytes: int, threads: int, data: st.DataObject
):
    store = Store()
    order = data.draw(st.permutations(ranges))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "read_bytes", store.read)
        with (
            ReadAhead(ranges, max_bytes=max_bytes, num_requests=3) as reader,
            ThreadPoolExecutor(threads) as pool,
        ):
            found = list(pool.map(lambda r: reader.read(*r), order))
    assert found == [(r.path[-1:].encode() + DATA)[r.offset : r.offset + r.num_bytes] for r in order]
    assert store.most_at_once <= 3 + threads  # a range that comes twice is asked for by whoever wants it


def test_neighbours_are_one_request_and_files_are_not(store: Store):
    tar = [Range("s3://b/a.tar", 512 + 2048 * i, 1000) for i in range(40)]
    files = [Range(f"s3://b/{i}.jpg", 0, 100) for i in range(5)]
    with ReadAhead([*tar, *files]) as reader:
        for one in [*tar, *files]:
            reader.read(*one)
    assert sorted(store.asked) == sorted([Range("s3://b/a.tar", 512, 39 * 2048 + 1000), *files])


def test_a_request_ends_at_a_wide_gap_and_at_its_size():
    from curation.read_ahead import _spans

    far = MAX_GAP_BYTES + 1
    ranges = [Range("s3://b/x", 0, 10), Range("s3://b/x", 10 + far, 10)]
    assert len(list(_spans(ranges))) == 2
    large = [Range("s3://b/x", i << 20, 1 << 20) for i in range(24)]
    sizes = [span.whole.num_bytes for span in _spans(large)]
    assert sizes == [MAX_SPAN_BYTES] * 3


def test_many_requests_are_under_way_and_no_more_than_asked_for_is_held(store: Store):
    files = [Range(f"s3://b/{i:03}.jpg", 0, 1000) for i in range(64)]
    store.wait_s = 0.01
    with ReadAhead(files, max_bytes=8_000, num_requests=16) as reader:
        time.sleep(0.1)
        assert len(store.asked) == 8  # what may be held
        for one in files:
            reader.read(*one)
    assert store.most_at_once == 8
    assert len(store.asked) == 64


def test_a_broken_range_costs_itself_alone(store: Store):
    ranges = [Range("s3://b/x", 1000 * i, 1000) for i in range(10)]
    store.broken = {4500}
    with ReadAhead(ranges) as reader:
        for number, one in enumerate(ranges):
            if number == 4:
                with pytest.raises(OSError, match="broken"):
                    reader.read(*one)
            else:
                assert len(reader.read(*one)) == 1000


def test_what_is_local_or_was_not_announced_is_read_as_ever(store: Store, tmp_path):
    (tmp_path / "a").write_bytes(b"abcdef")
    local = Range(str(tmp_path / "a"), 1, 3)
    with ReadAhead([local]) as reader:
        assert reader.read(*local) == b"bcd"
        assert store.asked == []
        assert reader.read("s3://b/x", 1, 5) == DATA[:5]
    assert store.asked == [Range("s3://b/x", 1, 5)]


def test_closing_ends_it(store: Store):
    store.wait_s = 0.01
    files = [Range(f"s3://b/{i:03}.jpg", 0, 1000) for i in range(500)]
    with ReadAhead(files, num_requests=2) as reader:
        reader.read(*files[0])
    asked = len(store.asked)
    assert asked < 100
    time.sleep(0.05)
    assert len(store.asked) == asked
