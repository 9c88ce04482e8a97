"""Orbax's commit of a checkpoint, on the disk before an older one may go.

Orbax renames a finished checkpoint into place without asking the disk for all of its
files first, so that a power cut can leave an empty one under a valid name.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from orbax.checkpoint.path import atomicity, atomicity_types

from vgg_jax import files
from vgg_jax.runs import manifest


def commit(
    first: Sequence[Path], then: Callable[[], None]
) -> type[atomicity_types.TemporaryPath]:
    """Returns the class by which Orbax commits; it works in Orbax's own thread.

    Args:
        first: files that must be on the disk before a checkpoint is, if they exist.
        then: called when a checkpoint is on the disk.
    """

    class Durable(atomicity.AtomicRenameTemporaryPath):
        async def finalize(self) -> None:
            final = Path(self.get_final())
            if not final.name.isdigit():  # a part of a checkpoint
                await super().finalize()
                return
            await asyncio.to_thread(_prepare, Path(self.get()), first)
            await super().finalize()
            await asyncio.to_thread(_settle, final)
            await asyncio.to_thread(then)

    return Durable


def _prepare(unfinished: Path, first: Sequence[Path]) -> None:
    for path in filter(Path.exists, first):
        files.sync(path)
    manifest.write(unfinished)
    files.sync_tree(unfinished)


def _settle(final: Path) -> None:
    files.sync_tree(final)
    files.sync(final.parent)
