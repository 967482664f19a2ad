"""Every error that `lvd` raises on purpose.

A bad image is data (a reason in a row), a bad step raises one of these. Each message is one paragraph
that says what went wrong, what was found, what was expected and what to do about it.
"""

import re
from typing import Any

from curation.printed import redact, visible


class LvdError(Exception):
    """The root of the tree; `exit_code` is what the command line ends with."""

    exit_code = 1

    def __init__(self, what: str, *, got: object = None, expected: object = None, remedy: str = "") -> None:
        self.what = what
        self.got = got
        self.expected = expected
        self.remedy = remedy
        parts = [_sentence(what)]
        if got is not None:
            parts.append(f"Got: {got}.")
        if expected is not None:
            parts.append(f"Expected: {expected}.")
        if remedy:
            parts.append(_sentence(remedy))
        # Names and URLs in it come from strangers, and it goes to terminals and logs.
        super().__init__(visible(redact(" ".join(parts)), keep="\n\t"))

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the fields when the error crosses a process border."""
        return (_rebuild, (type(self), vars(self).copy()))


def _sentence(text: str) -> str:
    return text if text.rstrip().endswith((".", "?", "\n")) else f"{text}."


def _rebuild(kind: type[LvdError], fields: dict[str, Any]) -> LvdError:
    return kind(**fields)


class ConfigError(LvdError):
    """A config, a flag or a combination of them that cannot mean anything."""

    exit_code = 2


class SourceError(LvdError):
    """A source that cannot be listed or read at all."""


class IntegrityError(LvdError):
    """Bytes on disk that are not the bytes that were written (found by hash, count or format).

    `path` is the file where it is one that the run itself has written, and that may be made anew.
    """

    def __init__(
        self, what: str, *, got: object = None, expected: object = None, remedy: str = "", path: str = ""
    ) -> None:
        super().__init__(what, got=got, expected=expected, remedy=remedy)
        self.path = path


class LockedError(LvdError):
    """Another live run owns the run directory."""


class ExecutorError(LvdError):
    """The executor, or a step on it, failed for a reason that is no single image's fault."""


class ModelError(LvdError):
    """A model that cannot be built, or weights that do not fit it."""


class StoppedError(LvdError):
    """The run was asked to stop (SIGTERM, Ctrl-C) and did so; everything published is kept."""

    exit_code = 143


# What libraries say for want of memory where Python has a class: of threads, PyTorch, decoders.
_NO_MEMORY = re.compile(
    r"can't start new thread|can't allocate memory|out of memory|insufficient memory|cannot allocate",
    re.IGNORECASE,
)


def is_no_memory(error: BaseException) -> bool:
    """Whether an error says that the process got no memory, whichever library says it."""
    if isinstance(error, LvdError):
        return False
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None
