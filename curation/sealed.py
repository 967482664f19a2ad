"""JSON that knows its own hash: of what nothing else has one."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from curation.errors import IntegrityError

_SEAL = "sealed_by"


def seal(data: Mapping[str, object]) -> str:
    """The text of an object; keys in their own order: what is read back prints as what was just made."""
    return json.dumps(sealed(data))


def sealed(data: Mapping[str, object]) -> dict[str, object]:
    """An object with its seal, which any writer of JSON may write."""
    return {**data, _SEAL: _hash(json.dumps(data))}


def unseal(text: str | bytes, *, where: str) -> dict[str, Any]:
    """The object in a text, once it is seen to be the one that was sealed.

    One without a seal, of an earlier version, is taken as it is.

    Raises:
        IntegrityError: when the text is no object, or another than was sealed.
    """
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise TypeError(f"a {type(data).__name__} where an object was expected")
    except (ValueError, TypeError, RecursionError) as error:
        raise _damaged(where, error) from error
    sealed_by = data.pop(_SEAL, None)
    if sealed_by is not None and sealed_by != _hash(json.dumps(data)):
        raise _damaged(where, "another content than was sealed")
    return data


def _damaged(where: str, got: object) -> IntegrityError:
    return IntegrityError(
        f"A file of the run is damaged: {where}",
        got=got,
        expected="JSON as it was written",
        remedy="Run the same config again: what is damaged is set aside and made anew",
        path=where,
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
