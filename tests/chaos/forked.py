"""`lvd` in a process of its own that does not begin with seconds of imports: a fork."""

import os
import signal
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.processes import MARK

TIMEOUT_S = 240.0
_TRACE_BEGINS_S = 20.0


@dataclass
class Forked:
    """A running `lvd`; `log` is what it prints."""

    pid: int
    log: Path
    mark: str
    tracer: "subprocess.Popen[bytes] | None" = None
    code: int | None = None

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Its exit code, or minus the signal that ended it; minus SIGALRM where it took too long."""
        end = time.monotonic() + timeout_s
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self.code = -signal.SIGALRM
            else:
                time.sleep(0.01)
        if self.tracer is not None:
            self.tracer.wait()
        return self.code

    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")


def start(
    arguments: Sequence[str],
    *,
    log: Path,
    trace: Sequence[str] = (),
    before: Callable[[], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Forked:
    """Start `lvd` with `arguments`.

    Args:
        arguments: of the command.
        log: where stdout and stderr go.
        trace: options of strace, which is attached before anything runs; none where empty.
        before: called in the new process first, to spoil what it stands on.
        environment: what to add to it.
    """
    mark = uuid.uuid4().hex
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        _become_lvd(arguments, log, before, {MARK: mark, **(environment or {})}, stop=bool(trace))
    tracer = _attach(pid, trace) if trace else None
    return Forked(pid, log, mark, tracer)


def run(arguments: Sequence[str], *, log: Path, timeout_s: float = TIMEOUT_S) -> int:
    """Run `lvd` to its end; returns its exit code."""
    return start(arguments, log=log).wait(timeout_s)


def _become_lvd(
    arguments: Sequence[str],
    log: Path,
    before: Callable[[], None] | None,
    environment: Mapping[str, str],
    *,
    stop: bool,
) -> None:
    code = 70
    try:
        os.setsid()
        os.environ.update(environment)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        if stop:
            os.kill(os.getpid(), signal.SIGSTOP)
        if before is not None:
            before()
        from pipelines.cli.main import main

        code = main(list(arguments))
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _attach(pid: int, options: Sequence[str]) -> "subprocess.Popen[bytes]":
    os.waitpid(pid, os.WUNTRACED)
    # Its lines would fill the pipe that its errors come by, and it and what it traces would stand still.
    to_nobody = () if "-o" in options else ("-o", os.devnull)
    tracer = subprocess.Popen(
        ["strace", "-f", "-qqq", *to_nobody, *options, "-p", str(pid)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    end = time.monotonic() + _TRACE_BEGINS_S
    while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
        if tracer.poll() is not None or time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            said = tracer.stderr.read().decode(errors="replace") if tracer.stderr else ""
            raise RuntimeError(f"strace cannot be attached: {said.strip()}")
        time.sleep(0.005)
    os.kill(pid, signal.SIGCONT)
    return tracer
