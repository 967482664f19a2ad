"""Processes of a program that was started with a mark, wherever they are: to be found, killed, missed."""

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path

MARK = "LVD_TEST_MARK"  # in the environment of a process and of all that it starts


def new_mark() -> dict[str, str]:
    """What to add to the environment of a program whose processes are to be found."""
    return {MARK: uuid.uuid4().hex}


def marked(mark: str) -> dict[int, str]:
    """Live processes with the mark in their environment: number and command line."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(folder.name)] = words
        except OSError:  # it has ended, or is another user's
            continue
    return found


def kill_marked(mark: str, which: Callable[[str], bool], *, number: int = signal.SIGKILL) -> list[int]:
    """Send a signal to those marked processes whose command line is meant; returns their numbers."""
    killed = [pid for pid, words in marked(mark).items() if which(words)]
    for pid in killed:
        os.kill(pid, number)
    return killed


def left_behind(mark: str, *, timeout_s: float) -> dict[int, str]:
    """What still runs when it was given time to end; these are killed."""
    end = time.monotonic() + timeout_s
    while (left := marked(mark)) and time.monotonic() < end:
        time.sleep(0.2)
    kill_marked(mark, lambda _words: True)
    return left


def children(parent: int) -> dict[int, str]:
    """The processes that one has started: number and command line. Ray's workers write over their marks."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(folder.name)] = words.strip()
    return found


def is_raylet(words: str) -> bool:
    """Whether a command line is that of a Ray node."""
    return words.split(" ", maxsplit=1)[0].endswith("/raylet/raylet")


def is_ray_agent(words: str) -> bool:
    """Whether a command line is that of a helper of a Ray node, which ends when one of them does."""
    return words.startswith("ray::") and words.endswith("Agent")


def is_ray_worker(words: str) -> bool:
    """Whether a command line is that of a process that does Ray's work."""
    return words.startswith("ray::") and not is_ray_agent(words)


def is_gcs(words: str) -> bool:
    """Whether a command line is that of the head of a Ray cluster."""
    return words.split(" ", maxsplit=1)[0].endswith("/gcs_server")


def is_torchrun(words: str) -> bool:
    """Whether a command line is that of torchrun as `lvd pretrain` starts it."""
    return " pipelines.training.torchrun " in words


def is_rank(words: str) -> bool:
    """Whether a command line is that of one of the processes of a training."""
    return " pipelines.cli pretrain " in words and not is_torchrun(words)
