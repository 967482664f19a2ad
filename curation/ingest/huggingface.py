"""The files of a Hugging Face data set, and the split of each. No code of a data set is ever run."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from curation import storage
from curation.errors import ConfigError, SourceError
from curation.ingest.beside import OtherFiles
from curation.ingest.imagefolder import is_image_name, list_image_folders
from curation.ingest.links import require_inside
from curation.ingest.problems import Findings
from curation.ingest.sources import HuggingFaceSource
from curation.ingest.walk import WalkRules, walk_source

_MAX_JSON_BYTES = 16 << 20
# Of what `save_to_disk` wrote: of several splits, or of one.
_SPLITS, _STATE = "dataset_dict.json", "state.json"
MARKS = (_SPLITS, _STATE, "dataset_info.json")  # a folder with one of them is a data set
# How `datasets` tells splits by the names of files and folders: these words, between anything but letters.
_WORDS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "dev": "validation", "val": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_NUMBERED = re.compile(r"(?:^|/)([A-Za-z0-9_.]+)-\d{5}-of-\d{5}\b")


def list_huggingface(
    source: HuggingFaceSource, findings: Findings, *, run_dir: str | None = None
) -> Iterator[storage.FileInfo]:
    """Stream the files of the split in order: Arrow files, parquet files, or the folders of an imagefolder.

    Raises:
        SourceError: when there is nothing of this kind.
        ConfigError: when the split is not there, or several are and none is named.
    """
    storage.require_dir(source.path)
    names = storage.list_names(source.path)
    if _SPLITS in names:
        splits = _read_json(storage.join(source.path, _SPLITS)).get("splits", [])
        split = choose_split(source, [str(name) for name in splits])
        yield from _saved(source, f"{_plain_name(split, source)}/")
    elif _STATE in names:
        yield from _saved(source, "")
    else:
        yield from _loose(source, findings, run_dir)


def _saved(source: HuggingFaceSource, folder: str) -> Iterator[storage.FileInfo]:
    """The Arrow files of a data set that `save_to_disk` wrote, in its order."""
    state = _read_json(storage.join(source.path, f"{folder}{_STATE}"))
    if not folder and source.split and state.get("_split") not in (None, source.split):
        raise _no_split(source, [str(state["_split"])])
    for entry in state.get("_data_files", []):
        key = folder + _plain_name(str(entry.get("filename")), source)
        try:
            file = storage.stat(storage.join(source.path, key))
            yield replace(require_inside(file, source.links), key=key)
        except FileNotFoundError as error:
            raise SourceError(
                f"A data set lacks a file that its state.json names: {storage.redact(source.path)}", got=key
            ) from error


def _loose(source: HuggingFaceSource, findings: Findings, run_dir: str | None) -> Iterator[storage.FileInfo]:
    parquet, has_images, beside = [], False, OtherFiles()
    rules = WalkRules(source.links, run_dir=run_dir)
    for file in walk_source(source.path, rules, findings=findings):
        if file.key.lower().endswith(".parquet") and not file.key.rpartition("/")[2].startswith("metadata."):
            parquet.append(file)
            beside.take(file.key)
        else:
            beside.pass_over(file.key)
        has_images = has_images or is_image_name(file.key)
    if parquet:
        beside.note(source.path, findings)
    folders = list_image_folders(source, findings, run_dir=run_dir) if has_images and not parquet else []
    units = parquet or folders
    if not units and findings.problems:
        return  # what might have been some is told
    if not units:
        raise SourceError(
            f"A folder holds no data set: {storage.redact(source.path)}",
            got="neither dataset_dict.json, state.json, parquet files nor images",
            expected="what `save_to_disk` wrote, the parquet files of a data set, or an imagefolder",
        )
    split = choose_split(source, [split_of(unit.key) for unit in units])
    yield from (unit for unit in units if split_of(unit.key) == split)


def split_of(key: str) -> str:
    """The split that a file's path tells: `data/NAME-00000-of-00009.parquet`, or a word such as `test`."""
    if numbered := _NUMBERED.search(key):
        return _WORDS.get(numbered[1].lower(), numbered[1])
    words = re.split(r"[^a-z]+", key.lower())
    return next((_WORDS[word] for word in words if word in _WORDS), "train")


def choose_split(source: HuggingFaceSource, there: list[str]) -> str:
    """The split that the source names, or the only one.

    Raises:
        ConfigError: naming those that there are.
    """
    splits = list(dict.fromkeys(there))
    wanted = source.split or (splits[0] if len(splits) == 1 else None)
    if wanted not in splits:
        raise _no_split(source, splits)
    return wanted


def _no_split(source: HuggingFaceSource, splits: list[str]) -> ConfigError:
    return ConfigError(
        f"A split of {storage.redact(source.path)} must be named"
        if source.split is None
        else f"{storage.redact(source.path)} has no split {source.split!r}",
        expected=f"split: one of {', '.join(splits)}",
    )


def _plain_name(name: str, source: HuggingFaceSource) -> str:
    """A name out of the data set's own files; one that leads elsewhere is not followed."""
    if not name or "/" in name or "\\" in name or name in (".", ".."):
        raise SourceError(
            f"A data set names a file outside of itself: {storage.redact(source.path)}",
            got=repr(name[:200]),
            expected="a name within its folder",
        )
    return name


def _read_json(path: str) -> dict[str, Any]:
    try:
        data = json.loads(storage.read_bytes(path, 0, min(storage.stat(path).num_bytes, _MAX_JSON_BYTES)))
    except (OSError, ValueError) as error:
        raise SourceError(f"A data set cannot be read: {storage.redact(path)}", got=error) from error
    if not isinstance(data, dict):
        raise SourceError(f"A data set cannot be read: {storage.redact(path)}", got=type(data).__name__)
    return data
