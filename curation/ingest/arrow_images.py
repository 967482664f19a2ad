"""Arrow streams with a column of image bytes, as `save_to_disk` of Hugging Face `datasets` writes them."""

from collections.abc import Iterator

import pyarrow as pa

from curation import storage
from curation.ingest.problems import Findings
from curation.ingest.sources import TableSource
from curation.ingest.staging import StagedImage
from curation.ingest.table_images import (
    READING_ERRORS,
    TableRows,
    choose_columns,
    reading_problem,
)


def arrow_images(info: storage.FileInfo, source: TableSource, *, findings: Findings) -> Iterator[StagedImage]:
    """Stream the rows of a file, record batch by record batch (as many rows as its writer put into one).

    Args:
        info: the file, as listed.
        source: what it belongs to.
        findings: what could not be read is added here; rows before it have come.

    Raises:
        ConfigError: when the columns are not those that the source names.
    """
    row = 0
    try:
        with storage.open_stream(info.path) as stream, pa.ipc.open_stream(stream) as batches:
            columns = choose_columns(batches.schema, source, info)
            table = TableRows(info, source, columns, findings)
            for batch in batches:
                yield from table.images(batch, row)
                row += len(batch)
            table.end()
    except READING_ERRORS as error:
        findings.problems.append(reading_problem(info, error, row))
