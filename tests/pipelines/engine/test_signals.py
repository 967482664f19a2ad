"""A SIGTERM becomes an error, and waits until Ray has started."""

import signal
import subprocess
import threading
from types import FrameType

import pytest

from curation.errors import StoppedError
from pipelines.engine.signals import sigterm_held, stop_on_sigterm


def test_a_sigterm_is_an_error_and_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError, match="Stopped by SIGTERM") as error, stop_on_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert error.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_set_no_handler() -> None:
    seen = []

    def inside() -> None:
        with stop_on_sigterm(), sigterm_held():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_sigterm_waits_and_meets_the_handler_that_was_there() -> None:
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGTERM, note)
    try:
        with sigterm_held():
            # To this thread: another one of the tests' process might meet the handler of the next line.
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray's own
            # As Ray starts its processes; they must hear a SIGTERM.
            words = ["sh", "-c", "kill -TERM $$; echo deaf"]
            started = subprocess.run(words, preexec_fn=lambda: None, capture_output=True, check=False)
            assert started.returncode == -signal.SIGTERM
            assert not received
        assert received == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is note
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_ray_makes_of_a_sigterm_meets_the_handler_too() -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyError

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(KeyError), sigterm_held():
            raise SystemExit(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
