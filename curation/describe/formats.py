"""Which formats are read at all, and the reason that fits a file which could not be."""

ALLOWED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

# What a file says that it is, by its first bytes (offset, bytes).
SIGNATURES: tuple[tuple[str, int, bytes], ...] = (
    ("JPEG", 0, b"\xff\xd8"),
    ("PNG", 0, b"\x89PNG\r\n"),
    ("WEBP", 8, b"WEBP"),
    ("GIF", 0, b"GIF8"),
    ("BMP", 0, b"BM"),
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
    ("TIFF", 0, b"II+\0"),
    ("TIFF", 0, b"MM\0+"),
    ("AVIF", 4, b"ftypavif"),
    ("AVIF", 4, b"ftypavis"),
    ("HEIF", 4, b"ftyphei"),
    ("HEIF", 4, b"ftypmif1"),
    ("HEIF", 4, b"ftypmsf1"),
    ("MP4", 4, b"ftyp"),
    ("JXL", 0, b"\xff\x0a"),
    ("JXL", 4, b"JXL \r\n\x87\n"),
    ("JPEG2000", 4, b"jP  \r\n\x87\n"),
    ("JPEG2000", 0, b"\xff\x4f\xff\x51"),
    ("QOI", 0, b"qoif"),
    ("PSD", 0, b"8BPS"),
    ("EPS", 0, b"%!PS"),
    ("EPS", 0, b"\xc5\xd0\xd3\xc6"),
    ("ICO", 0, b"\0\0\1\0"),
    ("DDS", 0, b"DDS "),
    ("EXR", 0, b"\x76\x2f\x31\x01"),
    ("PPM", 0, b"P5\n"),
    ("PPM", 0, b"P6\n"),
    ("PPM", 0, b"P6 "),
)
CUT_SHORT = ("truncated", "unexpected end", "end of file", "not enough")  # words in Pillow's errors


def sniff(data: bytes) -> str | None:
    """The format that the first bytes claim; None where they claim none."""
    for name, offset, signature in SIGNATURES:
        if data.startswith(signature, offset):
            return name
    head = data[:1024].lstrip().lower()
    if head.startswith((b"<svg", b"<?xml", b"<!doctype svg")) and b"<svg" in head:
        return "SVG"
    return None


def plain_name(pillow_format: str | None) -> str | None:
    """Pillow's name of a format; MPO (JPEGs one behind the other) is JPEG, as only the first is read."""
    return "JPEG" if pillow_format == "MPO" else pillow_format


def reason_unidentified(data: bytes) -> str:
    """Why no decoder on the list would open this file."""
    claimed = sniff(data)
    if claimed is None:
        return "not_an_image"
    if claimed not in ALLOWED:
        return "unsupported_format"
    return "truncated" if _ends_early(data, claimed) else "corrupt"


def reason_of(error: Exception, data: bytes) -> str:
    """The reason behind an exception that a decoder raised on an opened file."""
    words = str(error).lower()
    if "max_text" in words:  # "… data too large for PngImagePlugin.MAX_TEXT_CHUNK", "… >MAX_TEXT_MEMORY"
        return "metadata_bomb"
    claimed = sniff(data)
    if isinstance(error, EOFError) or any(cut in words for cut in CUT_SHORT):
        return "truncated"
    return "truncated" if claimed and _ends_early(data, claimed) else "corrupt"


def _ends_early(data: bytes, claimed: str) -> bool:
    match claimed:
        case "JPEG":
            return data.rfind(b"\xff\xd9") < 0
        case "WEBP":
            return len(data) < 8 + int.from_bytes(data[4:8], "little")
        case "TIFF":  # the directory often stands behind the pixels
            return len(data) < int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big")
        case "AVIF":
            return _boxes_end(data) > len(data)
        case _:
            return False


def _boxes_end(data: bytes) -> int:
    """Offset at which the last top-level box says that it ends (ISO/IEC 14496-12, §4.2)."""
    position = 0
    while 0 <= position <= len(data) - 8:
        num_bytes = int.from_bytes(data[position : position + 4], "big")
        if num_bytes < 8:  # 0: to the end of the file; 1: 64-bit sizes, which no picture needs
            return len(data)
        position += num_bytes
    return position
