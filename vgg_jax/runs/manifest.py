"""The list of a checkpoint's files, by which damage is told from other trouble."""

import zlib
from pathlib import Path

from vgg_jax.runs import checked_json

FILE = "manifest.json"
# Orbax writes these last, after the list. Nothing is read from them.
_UNLISTED = ("_CHECKPOINT_METADATA", "commit_success.txt")
_PIECE = 1 << 20  # bytes read at once


def write(directory: Path) -> None:
    """Lists size and CRC-32 of every file below a directory, in the file `FILE`."""
    listed = {
        str(path.relative_to(directory)): _sum(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in (FILE, *_UNLISTED)
    }
    (directory / FILE).write_text(checked_json.dumps({"files": listed}))


def damage(directory: Path, only: str = "") -> str:
    """Returns what is wrong with the files of a directory that has a list; "" if none.

    Args:
        directory: holds `FILE`.
        only: how names begin that are looked at, such as `record/`; "": all of them.

    Raises:
        OSError: a file is there and cannot be read (too many are open, say); that is
            no damage.
    """
    try:
        listed = checked_json.loads((directory / FILE).read_bytes(), "files")["files"]
    except (ValueError, KeyError) as error:
        return f"{FILE} is damaged: {error}"
    for name, (size, crc) in listed.items():
        if not name.startswith(only):
            continue
        try:
            found = _sum(directory / name)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return f"{name} is missing"
        if found[0] != size:
            return f"{name} has {found[0]:,} bytes of {size:,}"
        if found[1] != crc:
            return f"{name} is damaged: its CRC-32 is wrong"
    return ""


def _sum(path: Path) -> tuple[int, int]:
    """Returns the size in bytes and the CRC-32 of a file."""
    size = crc = 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return size, crc
