"""What torch has pickled: read without running anything, and told in our words when that cannot be.

torch's own text advises to load such a file with the safety off, which runs whatever the file says.
"""

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_MAX_BYTES = 16 << 20  # of instructions that are looked through for names: a model's are some 100 kB
_MAX_NAMED = 10
# A file of before torch 1.6 is five pickles, one after the other, and then the tensors' bytes.
_MAX_PICKLES = 5
# What weights are made of.
_PLAIN = re.compile(r"torch\b.*|collections\.OrderedDict|_codecs\.encode|builtins\.(?:set|bytearray|complex)")


def read_pickled(path: Path) -> dict[Any, Any]:
    """The dict in a file that torch saved, on the CPU; nothing in it is run.

    Raises:
        pickle.UnpicklingError: it holds Python objects, which are named; or it is no such file.
        ValueError: it holds something else than a dict.
    """
    try:
        with warnings.catch_warnings():
            # Of pickles of other versions; what cannot be read is an error besides.
            warnings.simplefilter("ignore", UserWarning)
            # The format of before torch 1.6 is no zip file, and cannot be mapped.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError(fault_of(path, error)) from error
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} where a dict was expected")
    return content


def fault_of(path: str | Path, error: Exception) -> str:
    """Why torch could not read a file: the Python objects in it, or torch's own word."""
    text = " ".join(str(error).split())
    is_refused = isinstance(error, pickle.UnpicklingError) or "weights_only" in text
    if is_refused and (names := list(dict.fromkeys(_objects_in(Path(path))))):
        more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        return f"Python objects, which are code and are not read: {', '.join(names[:_MAX_NAMED])}{more}"
    if "weights_only" not in text:
        return text
    _, _, told = text.partition("WeightsUnpickler error: ")
    return f"no pickle of tensors: {told.partition(' Check the documentation')[0] or 'torch refuses it'}"


def _objects_in(path: Path) -> Iterator[str]:
    """Names of classes and functions in the pickles of a file, but those that tensors are made of."""
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as stream:
                yield from _foreign_names(stream.read(_MAX_BYTES))
            return
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    with archive.open(name) as stream:
                        yield from _foreign_names(stream.read(_MAX_BYTES))
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return  # whoever reads it says what is wrong


def _foreign_names(data: bytes) -> Iterator[str]:
    end = 0
    for _ in range(_MAX_PICKLES):
        strings: list[str] = []
        try:
            for code, argument, position in pickletools.genops(data[end:]):
                name = ""
                if code.name == "GLOBAL":
                    name = str(argument).replace(" ", ".")
                elif code.name == "STACK_GLOBAL":  # its two names were put on the stack before
                    name = ".".join(strings[-2:])
                elif isinstance(argument, str):
                    strings.append(argument)
                name = name.replace("__builtin__.", "builtins.")
                if name and not _PLAIN.fullmatch(name):
                    yield name
                stop = position or 0
        except (ValueError, IndexError, UnicodeDecodeError, OverflowError):
            return  # the end of the pickles, or of what is one
        end += stop + 1
