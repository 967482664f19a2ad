"""Stores that answer nothing but errors are not asked for ever."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from curation import drivers
from curation.outages import MAX_FAILURES, MAX_LOST_S, REST_S, Outages, RestingError
from tests.s3_server import s3_environment

STORE = "s3://bucket"


def test_a_store_that_fails_rests_and_is_tried_once() -> None:
    now = [0.0]
    outages = Outages(lambda: now[0])
    for _ in range(MAX_FAILURES):
        outages.require(STORE)
        outages.failed(STORE, lost_s=0.0)
    with pytest.raises(OSError, match=f"last {MAX_FAILURES} requests failed"):
        outages.require(STORE)
    outages.require("s3://another")
    now[0] = REST_S
    outages.require(STORE)  # the one that tries
    with pytest.raises(OSError, match="is not asked"):
        outages.require(STORE)
    outages.failed(STORE, lost_s=0.0)
    with pytest.raises(OSError, match="is not asked"):
        outages.require(STORE)
    now[0] = 2 * REST_S
    outages.require(STORE)
    outages.answered(STORE)
    for _ in range(3):
        outages.require(STORE)


def test_a_store_that_costs_much_rests_before_it_has_failed_often() -> None:
    outages = Outages(lambda: 0.0)
    outages.failed(STORE, lost_s=0.7 * MAX_LOST_S)
    outages.require(STORE)
    outages.failed(STORE, lost_s=0.7 * MAX_LOST_S)
    with pytest.raises(RestingError, match="last 2 requests failed"):
        outages.require(STORE)
    outages.answered(STORE)
    outages.failed(STORE, lost_s=0.7 * MAX_LOST_S)
    outages.require(STORE)


def test_an_answer_in_between_begins_the_count_anew() -> None:
    outages = Outages(lambda: 0.0)
    for i in range(100):
        outages.require(STORE)
        if i % MAX_FAILURES == MAX_FAILURES - 1:
            outages.answered(STORE)
        else:
            outages.failed(STORE, lost_s=0.0)


class _DriverError(Exception):
    pass


_DriverError.__module__ = "botocore.exceptions"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Outages:
    outages = Outages()
    monkeypatch.setattr(drivers, "OUTAGES", outages)
    return outages


def _fail(error: BaseException, cause: BaseException | None = None) -> None:
    with drivers.translated(f"{STORE}/a"):
        raise error from cause


@pytest.mark.parametrize(
    ("error", "cause", "counts"),
    [
        (_DriverError("500"), None, True),
        (OSError(5, "translated"), _DriverError("500"), True),
        (TimeoutError("translated"), _DriverError("timeout"), True),
        (FileNotFoundError("no key"), _DriverError("404"), False),
        (PermissionError("not ours"), _DriverError("403"), False),
        (OSError("not a gzipped file"), None, False),
    ],
)
@pytest.mark.usefixtures("fresh")
def test_what_counts_as_a_failure(error: BaseException, cause: BaseException | None, counts: bool) -> None:
    for _ in range(MAX_FAILURES):
        with contextlib.suppress(OSError):
            _fail(error, cause)
    called = False
    try:
        with drivers.translated(f"{STORE}/b"):
            called = True
    except OSError:
        assert counts
    assert called != counts


class _Fails(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.server.resets:  # type: ignore[attr-defined]
            self.close_connection = True
            return
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def failing_store() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Fails)
    server.resets = False  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


SCRIPT = """
import time
from curation.ingest.rows import read_sample
from curation.read_ahead import Range, ReadAhead
rows = [{"path": f"s3://pool/{i}.jpg", "offset": 0, "num_bytes": 1000} for i in range(2000)]
num_failed = 0
with ReadAhead(Range(row["path"], 0, 1000) for row in rows) as reader:
    for row in rows:
        try:
            read_sample(reader, row)
        except OSError:
            num_failed += 1
print(num_failed)
"""


@pytest.mark.accept
@pytest.mark.parametrize("resets", [False, True])
def test_a_store_that_answers_nothing_but_errors(
    failing_store: ThreadingHTTPServer, tmp_path: Path, resets: bool
) -> None:
    failing_store.resets = resets  # type: ignore[attr-defined]
    port = failing_store.server_address[1]
    env = os.environ | s3_environment(f"http://127.0.0.1:{port}", tmp_path)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stdout.split() == ["2000"], done.stderr
    assert time.monotonic() - started < 150
