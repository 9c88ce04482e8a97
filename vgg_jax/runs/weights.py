"""The weights of a run, read without what else its checkpoints hold.

Nothing is moved, removed or claimed: the run may go on meanwhile.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict

from vgg_jax.errors import RunError, choose
from vgg_jax.nn import patterns
from vgg_jax.runs import checkpoint_record, manifest, old_checkpoints
from vgg_jax.runs.checkpoint_reader import alone, is_torn, reason
from vgg_jax.runs.checkpoint_record import Damaged

_PARTS = ("params", "batch_stats", "ema")
CHECKPOINTS = ("best", "last")


def checkpoint(directory: Path, which: str, monitor: str) -> Path:
    """Returns a checkpoint of a run.

    Args:
        directory: of the checkpoints.
        which: "best" by validation, or "last".
        monitor: as `Checkpoints` has it.

    Raises:
        ConfigError: `which` is neither.
        RunError: there is no such checkpoint.
        Damaged: one of which nobody knows whether it is the best.
    """
    choose(CHECKPOINTS, which, "checkpoint")
    numbers = checkpoint_record.numbers(directory)
    if not numbers:
        raise RunError(f"{directory.parent} has no checkpoint: train it first")
    if which == "last":
        return directory / str(numbers[-1])
    records = {}
    for number in numbers:
        try:
            records[number] = checkpoint_record.read(directory / str(number))
        except (Damaged, FileNotFoundError):
            if (directory / str(number)).exists():  # else the run, which goes on, did
                raise
    ranked = [
        (checkpoint_record.quality(record.metrics, monitor), number)
        for number, record in records.items()
        if record.metrics
    ]
    if not ranked:
        raise RunError(
            f"{directory.parent} has no validated checkpoint yet: go on with the run, "
            f"or name its last, {directory / str(numbers[-1])}"
        )
    return directory / str(max(ranked)[1])


def variables(path: Path) -> dict[str, Any]:
    """Returns the variables that a checkpoint is evaluated with, as numpy arrays.

    Averages of weights stand in for those that they are of.

    Raises:
        Damaged: its files are not those that were written.
        RunError: it is whole and cannot be read here.
    """
    listed = (path / manifest.FILE).exists()
    if listed and (problem := manifest.damage(path)):
        raise Damaged(f"checkpoint {path}: {problem}: name another one")
    wanted = unflatten_dict(
        {name: 0 for name in old_checkpoints.names(path) if name[0] in _PARTS}
    )
    arrays = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    request = ocp.args.PyTreeRestore(
        item=wanted, restore_args=arrays, partial_restore=True
    )
    try:
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone())
        with ocp.Checkpointer(handler, multiprocessing_options=alone()) as checkpointer:
            state = checkpointer.restore(path.absolute() / "state", args=request)
    except Exception as error:
        if not listed and is_torn(error):
            raise Damaged(f"checkpoint {path} is damaged: name another one") from error
        raise RunError(
            f"checkpoint {path} cannot be read here ({reason(error)})"
        ) from error
    averages = state.get("ema", {})
    params = old_checkpoints.modern_names(state["params"])
    statistics = state.get("batch_stats", {})
    read = {"params": patterns.replace(params, averages)}
    if statistics:
        read["batch_stats"] = patterns.replace(statistics, averages)
    return read
