"""What a process other than the first has in place of checkpoints and of a log."""

from typing import Any

import jax
import numpy as np


class NoCheckpoints:
    """Saves and finds nothing: the first process does (`processes.is_first`)."""

    def save(self, *_: Any, **__: Any) -> bool:
        """Returns False, as of a checkpoint that is not the best."""
        return False

    def latest(self) -> None:
        """Returns None: there is none."""

    def restore_best[State](self, like: State, **_: Any) -> State:
        """Returns zeros, in whose place `mesh.shared` puts the first process's."""
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)

    def wait(self) -> None:
        """Returns at once."""

    def close(self) -> None:
        """Returns at once."""


class NoLog:
    """Takes what `metric_log.MetricLog` takes, and drops it."""

    def write(self, *_: Any) -> None:
        """Drops a row."""

    def show(self, *_: Any) -> None:
        """Drops a row."""

    def close(self, *_: Any) -> None:
        """Returns at once."""
