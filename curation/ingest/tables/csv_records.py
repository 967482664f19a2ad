"""Records of a CSV or TSV, of which a bad one costs no more than itself.

A quote that is never closed, or closed somewhere far below, would take every row in between: such a record is
given up as the one line that it starts on, and reading goes on with the next.

Source: RFC 4180, §2.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from curation.ingest.tables.text_lines import MAX_LINE_BYTES, Lines

# A record with more lines is none: a quote was not closed.
MAX_RECORD_LINES = 1000


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its fields, or why it has none; and its first byte."""

    fields: list[str]
    offset: int
    fault: str | None = None


class Records:
    """The records from some byte of a text on, and the byte at which the next one starts.

    Args:
        header: names of the columns, by which a line within quotes is told from a row; none: this record is
            the header.
        url: the column of URLs, where there is one.
    """

    def __init__(
        self, lines: Lines, delimiter: str, *, header: Sequence[str] = (), url: str | None = None
    ) -> None:
        self._lines, self._delimiter = lines, delimiter
        self._num_fields = len(header)
        self._url_at = list(header).index(url) if url is not None else None
        self._again: deque[tuple[str, int]] = deque()  # lines that were read ahead, and where each ends
        self.offset = lines.offset
        field = f'(?:"(?:[^"]|"")*"|[^"{delimiter}]*)'
        self._whole = re.compile(f"{field}(?:{delimiter}{field})*[\r\n]*")

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        start = self.offset
        taken: list[tuple[str, int]] = []
        fault: str | None = None
        fields: list[str] = []
        try:
            fields = next(csv.reader(self._feed(taken), delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            fault = str(error)
        if not taken:
            raise StopIteration
        if fault is None and len(taken) > 1 and self._num_fields and len(fields) != self._num_fields:
            fault = f"{len(fields)} fields on {len(taken)} lines"
        if fault is not None:
            self._again.extendleft(reversed(taken[1:]))
            del taken[1:]
        self.offset = taken[-1][1]
        return Record(fields if fault is None else [], start, fault)

    def _feed(self, taken: list[tuple[str, int]]) -> Iterator[str]:
        """The lines of one record, as many as the reader asks for; none that is a row by itself."""
        num_chars, open_at = 0, 0
        while len(taken) < MAX_RECORD_LINES and num_chars < MAX_LINE_BYTES:
            line = self._next_line()
            if line is None:
                return
            if len(taken) == 1:
                open_at = len(next(csv.reader([taken[0][0]], delimiter=self._delimiter))) - 1
            if taken and self._is_row(line[0], open_at):
                self._again.appendleft(line)
                return
            taken.append(line)
            num_chars += len(line[0])
            yield line[0]

    def _next_line(self) -> tuple[str, int] | None:
        if self._again:
            return self._again.popleft()
        line = next(self._lines, None)
        return None if line is None else (line, self._lines.offset)

    def _is_row(self, line: str, open_at: int) -> bool:
        """Whether a line within quotes is a row by itself: with a URL where a row has it.

        What closes the quotes, `two",http://…`, looks like one where the URL comes after the quoted text;
        such a line is none unless its own quotes are in order.
        """
        if self._url_at is None or self._num_fields < 2:
            return False
        if self._url_at >= open_at and not self._whole.fullmatch(line):
            return False
        try:
            fields = next(csv.reader([line], delimiter=self._delimiter), [])
        except csv.Error:
            return False
        if len(fields) != self._num_fields:
            return False
        return fields[self._url_at].lstrip().lower().startswith(("http://", "https://"))
