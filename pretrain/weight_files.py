"""Which file a path to weights means. Apart from the code that reads it: torch takes seconds to import."""

from pathlib import Path

from curation.errors import ModelError
from pretrain.checkpoint_files import MARKER, TEACHER, complete_steps, step_dir, student_dirs

CHECKPOINTS = "checkpoints"
SHARD_INDEX = "model.safetensors.index.json"
LIBRARY_FILES = ("model.safetensors", SHARD_INDEX, "pytorch_model.bin")
# Pickle is code: of these, tensors and containers alone are read.
PICKLED = (".pth", ".pt", ".bin")


def find_weights(path: str | Path) -> Path:
    """The file that holds the weights that a path means.

    Args:
        path: a weights file; a checkpoint directory of ours; a run directory, for its newest complete
            checkpoint; that of a distillation, for its only student; or a directory that transformers or
            timm saved.

    Returns:
        A `.safetensors`, `.pth`, `.pt` or `.bin` file, or the index of a model in several `.safetensors`.

    Raises:
        ModelError: there is no such thing at this path.
    """
    path = trained_dir(Path(path))
    if path.is_file():
        return path
    if not path.exists():
        raise ModelError(
            "No weights", got=str(path), expected="a file or a directory", remedy="Check the path"
        )
    if not path.is_dir():
        raise ModelError(
            f"{path} holds no weights",
            got="a pipe, a socket or a device",
            expected="a file or a directory",
            remedy="Give a weights file, a checkpoint or a run directory",
        )
    if (path / TEACHER).is_file():
        return path / TEACHER
    if (path / CHECKPOINTS).is_dir():
        return find_weights(_newest_checkpoint(path))
    for name in LIBRARY_FILES if (path / "config.json").is_file() else ():
        if (path / name).is_file():
            return path / name
    raise ModelError(
        f"{path} holds no weights",
        got=", ".join(sorted(entry.name for entry in path.iterdir())[:10]) or "an empty directory",
        expected=f"{TEACHER}, or {CHECKPOINTS}/, or config.json with {' or '.join(LIBRARY_FILES)}",
        remedy="Give a weights file, a checkpoint, a run directory, or what transformers or timm saved",
    )


def trained_dir(path: Path) -> Path:
    """The path itself; of the run directory of a distillation the folder of its only student.

    Raises:
        ModelError: it has several students.
    """
    students = student_dirs(path)
    if len(students) > 1:
        raise ModelError(
            f"{path} has several students",
            got=", ".join(student.name for student in students),
            expected=f"the folder of one of them, such as {students[0]}",
        )
    return students[0] if students else path


def _newest_checkpoint(run_dir: Path) -> Path:
    steps = complete_steps(run_dir)
    if not steps:
        raise ModelError(
            f"{run_dir} holds no complete checkpoint",
            got=", ".join(sorted(path.name for path in (run_dir / CHECKPOINTS).iterdir())[:10]) or "none",
            expected=f"step-…/ with {MARKER}",
            remedy="Let the run go on until it saves one",
        )
    return step_dir(run_dir, steps[-1])
