"""How large a WebP says it is, which Pillow tells only once it has memory for all of it."""


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP by its first chunk, px; zeros where none can be told.

    Source: RFC 9649, §2.5–2.7.
    """
    match data[12:16]:
        case b"VP8X" if len(data) >= 30:
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L" if len(data) >= 25:
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 " if len(data) >= 30:
            width, height = (int.from_bytes(data[i : i + 2], "little") for i in (26, 28))
            return width & 0x3FFF, height & 0x3FFF
    return 0, 0
