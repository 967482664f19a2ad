"""What is hidden in a folder, a bucket or a tar, and no part of a source."""

# Folders beside these that begin with a dot. `lost+found` is none of them: what lies there was somebody's.
_FOLDERS = frozenset(
    (
        "__macosx",  # zip and tar on macOS
        "@eadir", "#recycle", "@recycle", "#snapshot", "@recently-snapshot",  # network disks
        "$recycle.bin", "system volume information",  # Windows
    )
)  # fmt: skip
_FILES = frozenset((".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory"))
# `._x.jpg` is what macOS keeps about `x.jpg`; the others stand for files that were removed while open.
_PREFIXES = ("._", ".nfs0", ".fuse_hidden")


def is_hidden(key: str) -> bool:
    """Whether a file is hidden, or lies in a folder that is.

    Hidden are folders whose names begin with a dot (`.ipynb_checkpoints`, `.Trash-1000`, `.git`), and the
    files and folders that systems put beside those of people. Any other file is not, whatever its name
    begins with: none of somebody's pictures may be lost.

    Args:
        key: of a file below its source, or in a tar; of a folder, with a slash at its end.
    """
    *folders, name = key.split("/")
    return any(_is_hidden_folder(folder) for folder in folders) or _is_hidden_file(name)


def _is_hidden_folder(name: str) -> bool:
    return (name.startswith(".") and name not in (".", "..")) or name.lower() in _FOLDERS


def _is_hidden_file(name: str) -> bool:
    return name.startswith(_PREFIXES) or name.lower() in _FILES
