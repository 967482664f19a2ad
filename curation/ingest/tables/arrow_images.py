"""Arrow streams with a column of image bytes, as `save_to_disk` of Hugging Face `datasets` writes them."""

from collections.abc import Iterator

import pyarrow as pa

from curation import storage
from curation.ingest.one_pass import arrow_file
from curation.ingest.problems import Findings
from curation.ingest.sources import TableSource
from curation.ingest.staging import StagedImage
from curation.ingest.tables.arrow_messages import CheckedMessages
from curation.ingest.tables.column_types import is_text
from curation.ingest.tables.table_images import (
    READING_ERRORS,
    TableRows,
    choose_columns,
    empty_note,
    reading_problem,
)


def arrow_images(info: storage.FileInfo, source: TableSource, *, findings: Findings) -> Iterator[StagedImage]:
    """Stream the rows of a file, record batch by record batch (as many rows as its writer put into one).

    Raises:
        ConfigError: when the columns are not those that the source names.
    """
    row = 0
    try:
        with (
            storage.open_stream(info.path) as stream,
            pa.ipc.open_stream(arrow_file(CheckedMessages(stream.read, info.num_bytes).read)) as batches,
        ):
            columns = choose_columns(batches.schema, source, info)
            table = TableRows(info, source, columns, findings)
            for batch in batches:
                _validate(batch)
                yield from table.images(batch, row)
                row += len(batch)
            table.end()
        if not row:
            findings.notes.append(empty_note(info.path))
    except READING_ERRORS as error:
        findings.problems.append(reading_problem(info, error, row))


def _validate(batch: pa.RecordBatch) -> None:
    """Arrow believes what a file says of offsets and indices: a wrong one is read from elsewhere in memory.

    Raises:
        pa.ArrowInvalid: when one leads out of its buffer.
    """
    for column in batch.columns:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            # Of text itself the offsets were looked at first; its odd bytes are kept.
            if not is_text(column.type) or "UTF8" not in str(error):
                raise
