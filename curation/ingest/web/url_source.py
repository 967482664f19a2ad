"""A list of URLs as a source: its config."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from curation.ingest.links import LinkConfig
from curation.ingest.web.download_config import DownloadConfig

ListFormat = Literal["txt", "csv", "tsv", "json", "jsonl", "parquet"]
LIST_SUFFIXES = (
    *(f".{kind}{gz}" for kind in ("txt", "csv", "tsv", "json", "jsonl") for gz in ("", ".gz")),
    ".parquet",
    ".pq",
)


class UrlSource(BaseModel):
    """Lists of image URLs, as img2dataset takes them; fetched once, and staged as tars."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["urls"] = "urls"
    path: str = Field(
        description="folder, file or pattern, local or URL: .txt, .csv, .tsv, .json, .jsonl, each also .gz, "
        "or .parquet",
        min_length=1,
    )
    key_prefix: str = Field("", description="put before every key, to tell the sources of a pool apart")
    format: ListFormat | None = Field(None, description="of the lists; null: as their names end")
    url: str = Field("url", description="column of the URLs; a .txt has one a line", min_length=1)
    key: str | None = Field(
        None, description="column that names the image within its list; null: the number of its row"
    )
    columns: tuple[str, ...] | None = Field(
        None, description="columns that travel as json, such as captions; null: all but that of the URLs"
    )
    max_sidecar_bytes: int = Field(
        16 << 20, description="bytes; a row whose json is longer has none, which is noted", ge=0
    )
    unit_rows: int = Field(
        10_000, ge=1, le=100_000, description="rows that are fetched as one unit of work and resume"
    )
    download: DownloadConfig = DownloadConfig()
    links: LinkConfig = Field(LinkConfig(), description="where symbolic links may lead")
