"""Every table that a run writes, and the words that the code uses for them.

Glossary
--------
pool            a named set of images with a role: curated, uncurated or holdout
part            about 10,000 images of one source of one pool; the unit of work, resume and retry
unit            a file of a source, or some rows of a large one: what is staged at a time
item            one piece of work of a step: what is done, retried and resumed by itself
block           a run of parts of one pool that is compared with another one; each pair of blocks is an item
group           a run of parts that are worked on together, where one part is too little work
bucket          parts, drawn by lot, whose selected images are shuffled together and written by one worker
wave            at most 4,096 items, which Ray is given at a time
generation      which time this is that something is asked of a world that changes, such as a listing
marker          a file that lists all receipts of a step for its items, so that a rerun reads one file
row             an image's position within its part; (part, row) names an image everywhere
global row      offset of the part + row, in the order of the run's parts; what array code works on
image_id        the first 128 bits of the SHA-256 of the file's bytes, 32 hex digits
descriptor      a vector in which copies of one picture lie close together
embedding       a vector in which pictures of like meaning lie close together
certain bits    those of a perceptual hash that re-encoding or resizing would not change; of 64
poor hash       one of which too few bits are certain: of such a picture neither hash nor descriptor is asked
miniature       32 x 32 colours of a picture of poor hash, which then decides: equal pixels are copies
edge            two rows and a score: these are copies of each other
component       a connected set of rows over edges
representative  the one row of a component that survives
score           cosine for vectors; 1 - distance / 64 for hashes; for miniatures 1 - w / 10, where w is
                their largest difference as a share of what re-encoding may change; 1 for equal bytes,
                hashes, descriptors or miniatures
likeness        score / threshold of its kind, the best of all kinds: a pair from 1 on is an edge
hub             a row with very many edges
chain           edges that join two images of which nobody would say that they are alike

The order of parts is the order of the config's pools, of a pool's sources, and of a source's listing
(by key). So "pool order, then key", the last tie-break everywhere, is the order of global rows.
"""

from typing import Literal

import pyarrow as pa

Role = Literal["curated", "uncurated", "holdout"]
ROLES: tuple[Role, ...] = ("curated", "uncurated", "holdout")

Stage = Literal["describe", "judge", "dedup", "decontaminate", "retrieve", "select", "shard"]
STAGES: tuple[Stage, ...] = ("describe", "judge", "dedup", "decontaminate", "retrieve", "select", "shard")

# Reasons of a drop, by the stage that may give them. `describe` decides only what can be decoded safely;
# every threshold that a user may want to move is judged in `judge`.
REASONS: dict[Stage, tuple[str, ...]] = {
    "describe": (
        "missing_image",  # a sample without an image member
        "empty",  # zero bytes
        "name_not_utf8",  # of the file, or of a folder that it lies in: a row has no form of it that opens it
        "unreadable",  # the source failed while the bytes were read
        "source_changed",  # the file is longer or shorter than it was when it was listed
        "file_too_large",  # more bytes than the hard cap
        "not_an_image",  # no known image format
        "unsupported_format",  # a known format outside the allow-list, or a pixel mode without an honest RGB
        "too_many_pixels",  # the header, or a tile, promises more pixels than the hard cap (image bombs)
        "metadata_bomb",  # metadata that costs more than any picture: compressed, or in very many pieces
        "truncated",  # the file ends before the picture does
        "corrupt",  # the picture cannot be decoded
        "crashed_decoder",  # its decoder's process died or hung twice with this image alone
        # Of images that are fetched from the web.
        "bad_url",  # no plain http(s) URL, or a line that cannot be read
        "repeated_url",  # asked for already, for an earlier row
        "blocked_domain",  # on a list of domains that are not asked
        "forbidden_address",  # leads to an address that is not public
        "opted_out",  # the site does not want it: robots.txt, X-Robots-Tag, TDM-Reservation
        "not_found",  # answered with 404 or 410
        "http_error",  # answered with anything else that is no image: an error, too many redirects, no HTTP
        "connection_failed",  # no such host, nobody listens, or the connection broke
        "timeout",
        "unit_full",  # not asked for yet: its unit has as many bytes as one may have
    ),
    "judge": (
        "too_small",
        "too_large",
        "aspect",
        "low_information",  # grey levels hardly vary: blank, or nearly
        "near_uniform",  # nearly all of it is of one grey level, whatever the little rest is
        "text_only",  # lines of text, or other thin strokes, on a plain ground
        "nsfw",
        "low_aesthetic",
        "watermark",
        "no_embedding",
        "no_score",  # a threshold is set on a score that the image does not have
    ),
    "dedup": ("exact_copy", "near_copy"),
    "decontaminate": ("leaks_holdout",),
    "retrieve": ("not_retrieved",),
    "select": ("over_cap", "equal_id", "query_only", "holdout"),
    "shard": (
        "source_changed",  # the bytes are others than those that were described
        "unreadable",  # the source failed while the bytes were read again, or they no longer decode
    ),
}

Origin = Literal["curated", "retrieved", "sampled"]
KEPT_REASONS = ("curated", "retrieved_by_sample", "retrieved_by_cluster", "sampled")

SIDECAR = pa.struct(
    [
        ("name", pa.string()),  # extension within the sample: "txt", "json", "cls", …
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("num_bytes", pa.int64()),
    ]
)

# ingest: where the bytes of every image lie.
IMAGES = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),  # for people: a path, or TAR#MEMBER
        pa.field("path", pa.string(), nullable=False),  # for readers: the file that holds the bytes
        pa.field("offset", pa.int64(), nullable=False),  # of the first byte within `path`
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("version", pa.string(), nullable=False),  # mtime and size, or etag, of `path`
        pa.field("sidecars", pa.list_(SIDECAR), nullable=False),
        pa.field("reason", pa.string()),  # set where ingest already knows that there is no image to read
    ]
)

# describe: one row for every row of IMAGES, in the same order.
DESCRIBED = pa.schema(
    [
        pa.field("sha256", pa.binary(32)),  # null where no bytes could be read
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("format", pa.string()),  # JPEG, PNG, …, as Pillow names them
        pa.field("width", pa.int32()),  # upright: after EXIF orientation
        pa.field("height", pa.int32()),
        pa.field("phash", pa.uint64()),
        pa.field("certain_bits", pa.int8()),  # of the hash
        pa.field("miniature", pa.binary()),  # null of a picture whose hash knows enough
        pa.field("pixel_std", pa.float32()),  # standard deviation of grey levels, 0–255
        pa.field("uniform_share", pa.float32()),  # of the pixels, within a few levels of the commonest
        pa.field("stroke_share", pa.float32()),  # of what is not plain ground, in thin strokes
        pa.field("has_embedding", pa.bool_(), nullable=False),
        # single words of ours, joined by _ (`laid_on_black`), and decoders' own with a name: "libtiff: …"
        pa.field("warnings", pa.list_(pa.string()), nullable=False),
        pa.field("reason", pa.string()),  # one of REASONS["describe"], null where decoded
    ]
)

# describe: what heads make of the embedding, one row for every row of DESCRIBED; null of a head that is off
# and of an image without a vector.
SCORES = pa.schema([pa.field(name, pa.float32()) for name in ("nsfw", "aesthetic", "watermark")])

# describe: every face that was found, in the order of rows; in pixels of the upright original.
FACES = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),  # within the part
        pa.field("left", pa.float32(), nullable=False),
        pa.field("top", pa.float32(), nullable=False),
        pa.field("width", pa.float32(), nullable=False),
        pa.field("height", pa.float32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),  # the detector's own confidence
    ]
)

# judge: one row for every row of DESCRIBED.
VERDICTS = pa.schema([pa.field("reason", pa.string())])

# dedup: scored pairs. By global rows, a before b; saved, a row counts from the first of its block.
EDGE_KINDS = ("exact", "phash", "cosine", "pca_hash", "pixels")
EDGES = pa.schema(
    [
        pa.field("a", pa.int64(), nullable=False),
        pa.field("b", pa.int64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("kind", pa.dictionary(pa.int8(), pa.string()), nullable=False),
    ]
)

# dedup: every row of a component of two or more.
COPIES = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # global
        pa.field("component", pa.int64(), nullable=False),  # numbered by their representatives' global rows
        pa.field("representative", pa.int64(), nullable=False),  # global row
        pa.field("reason", pa.string()),  # exact_copy, near_copy, or null for the representative
        pa.field("score", pa.float64(), nullable=False),  # of the row with its representative
    ]
)

# dedup: the health of every component, by its number. Rows are global.
HEALTH = pa.schema(
    [
        pa.field("size", pa.int64(), nullable=False),  # images
        pa.field("distinct", pa.int64(), nullable=False),  # what is equal (score 1) counts once
        pa.field("diameter", pa.int64(), nullable=False),  # longest shortest path of the distinct, edges
        pa.field("diameter_is_exact", pa.bool_(), nullable=False),  # false: a lower bound
        pa.field("end_a", pa.int64(), nullable=False),  # the two ends of such a path
        pa.field("end_b", pa.int64(), nullable=False),
        pa.field("ends_score", pa.float64(), nullable=False),  # of the two ends directly
        pa.field("weakest_a", pa.int64(), nullable=False),  # the ends of the edge of least likeness
        pa.field("weakest_b", pa.int64(), nullable=False),
        pa.field("weakest", pa.float64(), nullable=False),  # its score
        pa.field("weakest_kind", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("least_row", pa.int64(), nullable=False),  # the member least like the representative
        pa.field("least_score", pa.float64(), nullable=False),  # of the two directly
        pa.field("alarm", pa.bool_(), nullable=False),  # a chain joins images that are not alike
    ]
)

# dedup: the rows with the most edges, most first.
HUBS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("num_edges", pa.int64(), nullable=False),
        pa.field("num_equal", pa.int64(), nullable=False),  # of these, to rows of equal hash or descriptor
    ]
)

# decontaminate: every row that leaks an evaluation image.
LEAKS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("holdout", pa.int64(), nullable=False),  # global row of the evaluation image
        pa.field("score", pa.float64(), nullable=False),
        pa.field("kind", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("by_component", pa.bool_(), nullable=False),  # condemned through its component alone
    ]
)

# retrieve: the pool images that curated images brought in. Nominal count: rows; unique count: distinct `row`.
HITS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field(
            "query", pa.int64()
        ),  # global row of the curated image; null by cluster with no single cause
        pa.field("score", pa.float64(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),  # 0 is the nearest
        pa.field("method", pa.dictionary(pa.int8(), pa.string()), nullable=False),  # sample | cluster
    ]
)

SELECTION = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("pool", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("by_pool", pa.string()),
        pa.field("by_key", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("cluster", pa.int32()),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("shard_index", pa.int32(), nullable=False),
    ]
)

LINEAGE = pa.schema(
    [
        pa.field("pool", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("image_id", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("format", pa.string()),
        pa.field("decision", pa.string(), nullable=False),  # kept | dropped
        pa.field("stage", pa.string(), nullable=False),  # where the decision fell
        pa.field("reason", pa.string(), nullable=False),
        pa.field("by_pool", pa.string()),
        pa.field("by_key", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("component", pa.int64()),
        pa.field("cluster", pa.int32()),
        pa.field("shard", pa.string()),
        pa.field("shard_index", pa.int32()),
    ]
)


def image_id(sha256: bytes) -> str:
    """The 32 hex digits that name an image: the first 128 bits of the SHA-256 of its file's bytes."""
    return sha256[:16].hex()
