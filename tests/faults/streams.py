"""Programs whose stdout or stderr is closed, full, or a pipe that nobody reads."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

Fault = Literal["closed", "full", "unread"]
FAULTS: tuple[Fault, ...] = ("closed", "full", "unread")


def run_with(
    command: Sequence[str],
    *,
    stdout: Fault | None = None,
    stderr: Fault | None = None,
    timeout_s: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; a stream without a fault is captured."""
    closing = " ".join(f"{number}>&-" for number, fault in ((1, stdout), (2, stderr)) if fault == "closed")
    shell = ["sh", "-c", f'exec "$@" {closing}', "sh", *command]
    with _place(stdout) as out, _place(stderr) as err:
        return subprocess.run(
            shell, stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True, timeout=timeout_s, check=False
        )


@contextmanager
def _place(fault: Fault | None) -> Iterator[int]:
    match fault:
        case None | "closed":
            yield subprocess.PIPE
            return
        case "full":
            number = os.open("/dev/full", os.O_WRONLY)
        case "unread":
            source, number = os.pipe()
            os.close(source)
    try:
        yield number
    finally:
        os.close(number)
