"""`lvd init`: the config of a first run on somebody's own folders."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from curation import storage
from curation.errors import ConfigError
from curation.hidden import is_hidden
from curation.ingest.huggingface import MARKS
from curation.ingest.imagefolder import is_image_name
from curation.ingest.sources import SUFFIXES
from pipelines.config.read import read_yaml
from pipelines.config.run_config import validate

# Files that are looked at to tell what a folder holds.
MAX_LOOKED_AT = 2_000
ROLES = {"trusted": "curated", "images": "uncurated", "holdout": "holdout"}
COMMENTS = {
    "trusted": "what you trust: what resembles it is taken from the pool",
    "images": "what is searched",
    "holdout": "what must not leak, such as evaluation images",
}
HEAD = """\
# Every field there is, with its meaning and default: docs/config.md. What is not here has its default.
name: {name}

pools:
"""
TAIL = """
describe:
  # {advice}
  embed: {{embedder: gist}}
  descriptor: gist        # finds copies that were saved anew, resized, mirrored or recoloured

# What another threshold would do, `lvd dedup RUN_DIR --threshold 0.9` tells, from edge_floor on.
dedup: {{cosine_threshold: 0.95, edge_floor: 0.85}}
"""
DECONTAMINATE = """\
decontaminate: {cosine_threshold: 0.95}
"""
# Without trusted images nothing can be retrieved: then every image stays that is sound and no copy.
WITHOUT_TRUSTED = """
# Clusters have no part in a run that retrieves nothing; one costs nothing.
cluster: {num_clusters: 1}
"""


def first_config(name: str, folders: Mapping[str, Sequence[str]]) -> str:
    """The text of a config.

    Args:
        folders: of the images to be searched (`images`), of those that are trusted (`trusted`), and of those
            that must not leak (`holdout`).

    Raises:
        ConfigError: a folder is not there, or nothing in it could be an image.
    """
    text = HEAD.format(name=json.dumps(name))
    for pool, paths in folders.items():
        if not paths:
            continue
        text += f"  {pool}:  # {COMMENTS[pool]}\n    role: {ROLES[pool]}\n    sources:\n"
        for path in paths:
            text += f"      - {{kind: {kind_of(Path(path))}, path: {_quoted(path)}}}\n"
    text += TAIL.format(advice=embedder_advice())
    text += DECONTAMINATE if folders.get("holdout") else ""
    return text if folders.get("trusted") else text + WITHOUT_TRUSTED


def _quoted(path: str) -> str:
    whole = os.path.abspath(path)  # noqa: PTH100 — a link stays the link that was named
    return json.dumps(whole.replace("$", "$$"), ensure_ascii=False)


def kind_of(folder: Path) -> str:
    """The kind of source that a folder holds, told by the names of its first files.

    Raises:
        ConfigError: it is not there, or holds nothing that could be an image.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder", expected="folders of images, tars, parquet or WARC files")
    if any((folder / name).is_file() for name in MARKS):
        return "huggingface"
    seen: Counter[str] = Counter()
    for name in itertools.islice(_names(folder), MAX_LOOKED_AT):
        if is_image_name(name):
            seen["folder"] += 1
        seen.update(kind for kind in ("tars", "parquet", "warc") if name.endswith(SUFFIXES[kind]))
    if not seen:
        raise ConfigError(
            f"Nothing in {folder} looks like an image",
            got="no name of an image (.jpg, .png, .webp, …), and no .tar, .parquet or .warc",
            remedy="Give another folder, or write the source by hand: docs/sources.md has all kinds",
        )
    return seen.most_common(1)[0][0]


def _names(folder: Path) -> Iterator[str]:
    for _, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(f"{name}/"))
        yield from (name.lower() for name in sorted(files) if not is_hidden(name))


def embedder_advice() -> str:
    """Which embedder to take, in a line."""
    where = (
        "this machine's GPU"
        if Path("/dev/nvidia0").exists()
        else "this machine's CPU, where a small one does best"
    )
    return (
        "gist needs no weights and tells how a picture looks, not what it shows. For that give a\n"
        "  # model, such as timm:vit_small_patch14_dinov2.lvd142m@FILE.safetensors or\n"
        f"  # open_clip:ViT-B-32/FILE.pt; it would run on {where}."
    )


def write_first_config(path: str, text: str) -> None:
    """Write the text of a config, and see that it is one.

    Raises:
        ConfigError: a file lies there already.
    """
    file = Path(path)
    if file.exists():
        raise ConfigError(f"{path} is there already", remedy="Remove it, or name another file with --out")
    storage.publish_bytes(str(file), text.encode())
    validate(read_yaml(file), where=path)
