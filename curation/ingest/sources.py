"""Where images come from: the configs of the sources."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from curation.ingest.links import LinkConfig
from curation.ingest.sidecars import DEFAULT_EXTENSIONS, SidecarRule
from curation.ingest.web.download_config import DownloadConfig

Extension = Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
# Fields that several kinds of sources have.
KeyPrefix = Annotated[str, Field(description="put before every key, to tell the sources of a pool apart")]
Links = Annotated[LinkConfig, Field(description="where symbolic links may lead")]
ImageBytes = Annotated[
    int, Field(ge=1, description="bytes; a larger image is not kept, its row says file_too_large")
]
JsonBytes = Annotated[
    int, Field(ge=0, description="bytes; a row whose json is longer has none, which is noted")
]
# They have no byte ranges: staged as plain tars, which every later stage reads.
COMPRESSED_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
ListFormat = Literal["txt", "csv", "tsv", "json", "jsonl", "parquet"]
LIST_SUFFIXES = (
    *(f".{kind}{gz}" for kind in ("txt", "csv", "tsv", "json", "jsonl") for gz in ("", ".gz")),
    ".parquet",
    ".pq",
)
# What a folder or a wildcard of a kind takes, in lower case.
SUFFIXES: dict[str, tuple[str, ...]] = {
    "tars": (".tar", *COMPRESSED_TAR_SUFFIXES),
    "parquet": (".parquet", ".pq"),
    "urls": LIST_SUFFIXES,
    "warc": (".warc", ".warc.gz", ".warc.zst", ".wat", ".wat.gz", ".wat.zst"),
}


class FolderSource(BaseModel, frozen=True, extra="forbid"):
    """A folder of image files, with everything below it."""

    kind: Literal["folder"] = "folder"
    path: str = Field(description="folder: a local path or a URL such as s3://bucket/prefix", min_length=1)
    key_prefix: KeyPrefix = ""
    sidecars: tuple[Extension, ...] = Field(
        DEFAULT_EXTENSIONS, description="extensions (lower case, no dot) of files that accompany an image"
    )
    max_sidecar_bytes: int = Field(
        16 << 20, description="bytes; a larger file is no sidecar but a file of its own", ge=0
    )
    links: Links = LinkConfig()

    @property
    def sidecar_rule(self) -> SidecarRule:
        """What counts as a sidecar."""
        return SidecarRule(self.sidecars, self.max_sidecar_bytes)


class TarSource(BaseModel, frozen=True, extra="forbid"):
    """WebDataset tars: a folder that holds them, one tar, or a pattern of braces and wildcards."""

    kind: Literal["tars"] = "tars"
    path: str = Field(
        description="folder, tar or pattern, local or URL: s3://bucket/{000000..000099}.tar, /data/*.tar",
        min_length=1,
    )
    key_prefix: KeyPrefix = ""
    max_member_bytes: int = Field(
        256 << 20, description="bytes; a larger member is never read, its row says file_too_large", ge=1
    )
    max_unpacked_bytes: int = Field(
        32 << 30, description="bytes that a compressed tar may unpack to; what lies beyond is not read", ge=1
    )
    sidecars: tuple[Extension, ...] = Field(
        DEFAULT_EXTENSIONS, description="extensions (lower case, no dot) of members that accompany an image"
    )
    max_sidecar_bytes: int = Field(
        16 << 20, description="bytes; a larger member is no sidecar but a member of its own", ge=0
    )
    links: Links = LinkConfig()

    @property
    def sidecar_rule(self) -> SidecarRule:
        """What counts as a sidecar."""
        return SidecarRule(self.sidecars, self.max_sidecar_bytes)


class TableSource(BaseModel, frozen=True, extra="forbid"):
    """What all tables with a column of images share."""

    kind: str
    path: str = Field(min_length=1)
    key_prefix: KeyPrefix = ""
    image: str | None = Field(
        None,
        description="column of the images' bytes; `a.b` is field b of a struct; null: found by type and name",
    )
    key: str | None = Field(
        None, description="column that names the image within its file; null: the number of its row"
    )
    columns: tuple[str, ...] | None = Field(
        None, description="columns that travel as json; null: all but those of bytes that are no text"
    )
    max_image_bytes: ImageBytes = 256 << 20
    max_sidecar_bytes: JsonBytes = 16 << 20
    links: Links = LinkConfig()


class ParquetSource(TableSource):
    """Parquet files with a column of image bytes; staged as tars."""

    kind: Literal["parquet"] = "parquet"
    path: str = Field(
        description="folder, file or pattern, local or URL: s3://bucket/{000..099}.parquet, /data/*.parquet",
        min_length=1,
    )


class HuggingFaceSource(TableSource):
    """A data set of Hugging Face `datasets` as files: saved by `save_to_disk`, parquet, or an imagefolder."""

    kind: Literal["huggingface"] = "huggingface"
    path: str = Field(description="folder of the data set, local or URL; no code in it is run", min_length=1)
    split: str | None = Field(None, description="which split; may be left out where there is one")


class WarcSource(BaseModel, frozen=True, extra="forbid"):
    """WARC files of a web crawl, or WAT files of its links; staged as tars."""

    kind: Literal["warc"] = "warc"
    path: str = Field(
        description="folder, file or pattern, local or URL: /data/crawl/*.warc.gz", min_length=1
    )
    key_prefix: KeyPrefix = ""
    take: Literal["images", "links"] = Field(
        "images",
        description="images: the bytes of answers that are images; links: what the <img> of pages lead to, "
        "fetched now",
    )
    max_image_bytes: ImageBytes = 256 << 20
    download: DownloadConfig = Field(
        DownloadConfig(), description="how links are fetched; of images, whether opt-outs are honoured"
    )
    links: Links = LinkConfig()


class UrlSource(BaseModel, frozen=True, extra="forbid"):
    """Lists of image URLs, as img2dataset takes them; fetched once, and staged as tars."""

    kind: Literal["urls"] = "urls"
    path: str = Field(
        description="folder, file or pattern, local or URL: .txt, .csv, .tsv, .json, .jsonl, each also .gz, "
        "or .parquet",
        min_length=1,
    )
    key_prefix: KeyPrefix = ""
    format: ListFormat | None = Field(None, description="of the lists; null: as their names end")
    url: str = Field("url", description="column of the URLs; a .txt has one a line", min_length=1)
    key: str | None = Field(
        None, description="column that names the image within its list; null: the number of its row"
    )
    columns: tuple[str, ...] | None = Field(
        None, description="columns that travel as json, such as captions; null: all but that of the URLs"
    )
    max_sidecar_bytes: JsonBytes = 16 << 20
    unit_rows: int = Field(
        10_000, ge=1, le=100_000, description="rows that are fetched as one unit of work and resume"
    )
    download: DownloadConfig = DownloadConfig()
    links: Links = LinkConfig()


Source = Annotated[
    FolderSource | TarSource | ParquetSource | HuggingFaceSource | WarcSource | UrlSource,
    Field(discriminator="kind"),
]
