"""What a table may inflate to: a few kilobytes may claim gigabytes, which would be asked for at once."""

import pyarrow as pa

# Photographs hardly shrink and texts shrink twentyfold; what is held at once and comes to more than that,
# beyond the first bytes, is a bomb.
_FREE_BYTES = 256 << 20
_MAX_RATIO = 20


class InflatesError(pa.ArrowInvalid):  # type: ignore[misc]  # Arrow has no types
    """What would be held at once is far larger than what is stored."""


def is_bomb(*, stored: int, plain: int) -> bool:
    """Whether `stored` bytes may not become `plain` ones, all held at once."""
    return plain > max(_FREE_BYTES, _MAX_RATIO * stored)


def refuse_bomb(what: str, *, stored: int, plain: int) -> None:
    """Go on only where `stored` bytes may become `plain` ones.

    Raises:
        InflatesError: where they may not.
    """
    if is_bomb(stored=stored, plain=plain):
        raise InflatesError(
            f"{what} of {stored} bytes comes to {plain} bytes at once; more than {_FREE_BYTES} bytes may be "
            f"no more than {_MAX_RATIO} times what is stored"
        )
