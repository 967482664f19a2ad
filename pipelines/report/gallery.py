"""The answer of a search as a page: one HTML file with everything in it."""

from dataclasses import dataclass
from typing import Any

from curation import storage
from curation.errors import SourceError
from curation.pictures.decode import decode
from curation.schema import LINEAGE
from pipelines.answers.nearest import SearchAnswer, read_asked
from pipelines.report.pictures import Picture, Scored
from pipelines.report.render import render_page
from pipelines.report.thumbnails import SIDE_PX, Originals, Thumbnail, make_thumbnails, thumbnail_of

FILE_ROW = -1  # the row of a picture that is no image of the run


@dataclass(frozen=True)
class Gallery:
    """What the page shows."""

    title: str
    name: str  # of the dataset
    by: str
    model: str
    query: Picture
    hits: tuple[Scored, ...]  # nearest first
    code_version: str
    dataset_dir: str


def write_gallery(answer: SearchAnswer, path: str) -> None:
    """Write the page; a file that is there is replaced.

    Args:
        answer: of a search.
        path: of the HTML file.
    """
    gallery = make_gallery(answer)
    made = answer.run.made
    pictures = [gallery.query, *(hit.picture for hit in gallery.hits)]
    of_run = [picture for picture in pictures if picture.row != FILE_ROW]
    config = answer.run.config.describe.decode
    with Originals(answer.run.dataset_dir, made.parts if made else None, of_run) as originals:
        thumbnails = make_thumbnails(of_run, originals, config=config)
    if answer.asked.file is not None:
        data = read_asked(answer.asked.file, config)
        decoded = decode(data, need_side_px=SIDE_PX, config=config)
        if decoded.pixels is None:  # it could be when it was searched by
            raise SourceError(f"{answer.asked.file} has changed during the search", got=decoded.reason)
        thumbnails[FILE_ROW] = Thumbnail(thumbnail_of(decoded.pixels))
    text = render_page("gallery.html", {"gallery": gallery, "thumbnails": thumbnails})
    storage.publish_bytes(path, text.encode(), replace=True)


def make_gallery(answer: SearchAnswer) -> Gallery:
    """What the page shows of an answer."""
    settings, manifest = answer.run.config.describe, answer.run.manifest
    by_copies = answer.asked.by == "descriptors"
    query = dict(answer.query)
    row = answer.query_row
    picture = _file_picture(query) if row is None else Picture(row=row, **query)
    hits = []
    for hit in answer.hits:
        fields = dict(hit)
        value, row = fields.pop("score_with_query"), fields.pop("row")
        hits.append(Scored(Picture(row=row, **fields), value))
    return Gallery(
        title=query.get("file", f"{picture.pool}/{picture.key}"),
        name=manifest["name"],
        by="copy descriptor" if by_copies else "embedding",
        model=str(settings.descriptor if by_copies else settings.embed.embedder),
        query=picture,
        hits=tuple(hits),
        code_version=manifest["code_version"],
        dataset_dir=manifest["dataset_dir"],
    )


def _file_picture(query: dict[str, str]) -> Picture:
    fields: dict[str, Any] = dict.fromkeys(LINEAGE.names)
    fields |= {"pool": "file", "key": query["file"], "uri": query["file"], "image_id": query["image_id"]}
    fields |= {"decision": "asked for", "stage": "", "reason": "no image of the run"}
    return Picture(row=FILE_ROW, **fields)
