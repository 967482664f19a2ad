"""What a command prints: a result on stdout, which must arrive, and words for people, which may be lost.

A disk that is full, a terminal that was closed or a reader that has gone must not end what has been at work
for hours. So nothing that is printed raises: what could not be told on stdout is the exit code in the end.
"""

import errno
import io
import os
import sys
from types import TracebackType
from typing import TextIO

NOT_PRINTED = 1
READER_GONE = 141  # as a shell says of SIGPIPE, in `lvd … | head`


class Stream(io.TextIOBase):
    """A text stream that goes silent when its file fails.

    Args:
        file: where to; None where the process was started with the stream closed.
        number: of the descriptor that is turned away then: Python itself writes what is left in the end.

    Attributes:
        error: why something could not be written.
    """

    def __init__(self, file: TextIO | None, number: int) -> None:
        self.file = file
        self.error: OSError | None = None
        self._number = number

    def write(self, text: str) -> int:
        """Write, or do nothing."""
        if self.error is None:
            try:
                if self.file is None:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                self.file.write(self._encodable(text))
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing."""
        if self.error is None and self.file is not None:
            try:
                self.file.flush()
            except OSError as error:
                self._fail(error)

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        return self.error is None and self.file is not None and self.file.isatty()

    def fileno(self) -> int:
        """The file's descriptor."""
        return self._number if self.file is None else self.file.fileno()

    def writable(self) -> bool:
        """Always."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The file's."""
        return (None if self.file is None else self.file.encoding) or "utf-8"

    def _encodable(self, text: str) -> str:
        """`text` with escapes for what the terminal's encoding cannot say, such as names that are no text."""
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        return text

    def _fail(self, error: OSError) -> None:
        self.error = error
        if self.file in (sys.__stdout__, sys.__stderr__) and self.file is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._number)
            os.close(nowhere)


class Streams:
    """stdout and stderr of one command, safe inside the `with`."""

    def __enter__(self) -> "Streams":
        _open_closed()
        self._before = (sys.stdout, sys.stderr)
        self.out, self.people = Stream(sys.stdout, 1), Stream(sys.stderr, 2)
        sys.stdout, sys.stderr = self.out, self.people
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.out.flush()
        self.people.flush()
        sys.stdout, sys.stderr = self._before

    def exit_code(self, code: int) -> int:
        """The exit code of a command that ends with `code`: another one where its result did not arrive."""
        self.out.flush()
        error = self.out.error
        if error is None:
            return code
        if isinstance(error, BrokenPipeError):
            return code or READER_GONE
        print(f"lvd: The result could not be printed on stdout: {error.strerror}.", file=sys.stderr)
        return code or NOT_PRINTED


def _open_closed() -> None:
    """Give the first three descriptors to nobody: a file that got one would have words written into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
