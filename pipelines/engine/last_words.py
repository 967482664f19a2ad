"""The end of a run on Ray, told by a process that Ray does not know.

Ray's core ends the process that it runs in (`_exit`) when it finds the node of this machine gone: after
`ray stop`, say, or when the kernel has killed one of the node's helpers. Nothing in that process hears of it.
"""

import atexit
import contextlib
import os
import signal
import sys
from typing import NoReturn

from curation.errors import ExecutorError
from curation.orphans import end_with_parent
from pipelines.engine.output import print_error

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_AWAITED = (*PASSED_ON, signal.SIGCHLD)

_told: list[int] = []  # the descriptor to tell the parent by


def is_lost(why: str) -> ExecutorError:
    """The error of a run whose cluster failed, `why` in words."""
    return ExecutorError(
        "The Ray cluster is lost, or failed",
        got=why,
        expected="a cluster that lives until the work is done",
        remedy="See that its head is up, and run the same command again: it goes on where it was",
    )


def go_on_apart() -> None:
    """Go on in a process of its own, of which this one tells how it ended, and ends as it did.

    Only for a program: the caller is the child from here on. It has a session of its own, so that Ctrl-C
    reaches it once, through this one; it ends with this one, however that ends.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    ear, mouth = os.pipe()
    parent = os.getpid()
    # They wait until they are asked for: a handler could run too early, or be waited for in vain.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    child = os.fork()
    if child:
        os.close(mouth)
        _tell_of(child, ear, before)
    os.close(ear)
    os.setsid()
    _told.append(mouth)
    atexit.register(knowingly)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    end_with_parent(parent=parent)


def knowingly() -> None:
    """This process ends by itself, and has said why: to be called before any end that is ours."""
    while _told:
        with contextlib.suppress(BrokenPipeError):  # nobody listens any more
            os.write(_told[0], b".")
        os.close(_told.pop())


def _tell_of(child: int, ear: int, mask: "set[signal.Signals | int]") -> NoReturn:
    """Wait for the child, and end as it did."""
    code = os.waitstatus_to_exitcode(_status_of(child))
    os.set_blocking(ear, False)  # whoever else has the other end may live on
    if _heard(ear):
        os._exit(code)
    if -code in PASSED_ON:  # as it would have ended without us
        signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.kill(os.getpid(), -code)
    print_error(str(_silent(code)))
    sys.stderr.flush()
    os._exit(ExecutorError.exit_code)


def _heard(ear: int) -> bool:
    try:
        return bool(os.read(ear, 1))
    except BlockingIOError:
        return False


def _silent(code: int) -> ExecutorError:
    """The error of a process that ended without a word."""
    if code < 0:
        name = signal.Signals(-code).name
        return is_lost(f"the process that asks it was ended by {name} (the kernel's, for want of memory?)")
    return is_lost("its node on this machine has ended (raylet), and Ray ended the process that asked it")


def _status_of(child: int) -> int:
    """Pass signals on to the child until it has ended; its status."""
    while True:
        number = signal.sigwait(_AWAITED)
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
