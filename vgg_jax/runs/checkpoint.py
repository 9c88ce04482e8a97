"""Checkpoints: Orbax, asynchronous and atomic, checked for damage when read."""

import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from vgg_jax.errors import RunError
from vgg_jax.runs import old_checkpoints

State = TypeVar("State")  # a pytree with `params`, `step` and `epochs`


class NotFinite(RunError):
    """The state to save holds NaN or infinity."""


class Checkpoints:
    """The checkpoints of a run: the last two and the best.

    They are numbered by updates made plus epochs finished, so that the states before
    and after the validation that ends an epoch have numbers of their own.

    A checkpoint appears under its number once it is complete; a crash or a full disk
    leaves the earlier ones as they were.

    Args:
        directory: created if missing.
        monitor: key of the metric that decides which is best; "loss" is best when
            low, everything else when high. Ties go to the later one.
    """

    def __init__(self, directory: Path, *, monitor: str = "accuracy") -> None:
        self.directory = Path(directory).absolute()
        self._monitor = monitor
        keep = managers.AnyPreservationPolicy(
            [
                managers.LatestN(2),
                managers.BestN(
                    get_metric_fn=self._quality,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep,
                best_fn=self._quality,  # without one, Orbax drops the metrics
                cleanup_tmp_directories=True,
            ),
        )
        self._best_quality = max((q for q, _ in self._ranked()), default=-np.inf)

    def _ranked(self) -> list[tuple[float, int]]:
        """Returns quality and number of every complete checkpoint with metrics."""
        metrics = {n: self._manager.metrics(n) for n in self._manager.all_steps()}
        return [(self._quality(m), n) for n, m in metrics.items() if m]

    def _quality(self, metrics: dict[str, float]) -> float:
        value = metrics[self._monitor]
        return -value if self._monitor == "loss" else value

    def save(self, state: Any, metrics: dict[str, float] | None = None) -> bool:
        """Starts saving a copy of `state`; returns before it is on disk.

        Args:
            state: numpy or JAX arrays.
            metrics: of the validation split; only such a checkpoint can be the best.

        Returns:
            Whether it is the best so far.

        Raises:
            NotFinite: `state.params` are not finite; nothing was saved.
            RunError: this or an earlier save failed (a full disk, say).
        """
        state = jax.tree.map(lambda a: np.array(a, copy=True), jax.device_get(state))
        if not all(np.isfinite(a).all() for a in jax.tree.leaves(state.params)):
            raise NotFinite(f"the weights after step {state.step} are not finite")
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            crc=ocp.args.JsonSave({"crc32": _crc(state)}),
        )
        self._guard(
            lambda: self._manager.save(
                number(state), args=arguments, metrics=metrics, force=True
            )
        )
        quality = self._quality(metrics) if metrics else -np.inf
        best = metrics is not None and quality >= self._best_quality
        self._best_quality = max(self._best_quality, quality)
        return best

    def wait(self) -> None:
        """Returns when everything saved is on disk; RunError if it cannot be."""
        self._guard(self._manager.wait_until_finished)

    def _guard(self, action):
        try:
            action()
        except Exception as error:
            good = self.latest()
            raise RunError(
                f"a checkpoint could not be written to {self.directory}: "
                f"{_reason(error)}; the last good one is "
                f"{'none' if good is None else good}; make room or mend the directory "
                "and run the same command again"
            ) from error

    def latest(self) -> int | None:
        """Returns the newest complete checkpoint, or None."""
        return latest(self.directory)

    def best(self) -> int | None:
        """Returns the best complete checkpoint by the monitored metric, or None."""
        self.wait()
        return max(self._ranked(), default=(None, None))[1]

    def restore(self, number: int, like: State) -> State:
        """Reads a checkpoint into the structure and types of `like`.

        Raises:
            RunError: it is damaged, or not of this structure.
        """
        empty = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), like)
        try:
            old = old_checkpoints.has_frozen_kernel(self.directory / str(number))
            saved = old_checkpoints.to_old(empty) if old else empty
            read: Any = self._manager.restore(
                number,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(saved), crc=ocp.args.JsonRestore()
                ),
            )
        except Exception as error:
            raise RunError(
                f"checkpoint {number} cannot be read: {_reason(error)}"
            ) from error
        if _crc(read.state) != read.crc["crc32"]:
            raise RunError(f"checkpoint {number} is damaged: its CRC-32 is wrong")
        return jax.device_put(old_checkpoints.to_new(read.state) if old else read.state)

    def restore_latest(
        self, like: State, report: Callable[[str], None] = logging.warning
    ) -> State | None:
        """Returns the newest checkpoint that can be read, or None if there is none.

        Damaged ones are moved to `damaged/` beside the checkpoints, and reported.

        Raises:
            RunError: there are checkpoints, and none can be read.
        """
        return self._restore_first(self.latest, like, report)

    def restore_best(
        self, like: State, report: Callable[[str], None] = logging.warning
    ) -> State | None:
        """Returns the best checkpoint that can be read; else as `restore_latest`."""
        return self._restore_first(self.best, like, report)

    def _restore_first(self, choose, like, report):
        problems = []
        while (step := choose()) is not None:
            try:
                state = self.restore(step, like)
            except RunError as error:
                problems.append(str(error))
                self._set_aside(step)
            else:
                if problems:
                    report(f"{'; '.join(problems)}. Going on from {step} instead.")
                return state
        if problems:
            raise RunError(
                f"no checkpoint in {self.directory} can be read: {'; '.join(problems)}"
                ". They were moved to damaged/; the same command starts again without."
            )
        return None

    def _set_aside(self, step):
        damaged = self.directory.parent / "damaged"
        damaged.mkdir(exist_ok=True)
        number = sum(1 for _ in damaged.iterdir())
        (self.directory / str(step)).rename(damaged / f"{step}-{number}")
        self._manager.reload()

    def close(self) -> None:
        """Waits for what is being saved and lets go of the directory."""
        self._manager.close()


def _reason(error: Exception) -> str:
    """Returns an error of Orbax on one line; the cause ends a long one."""
    text = " ".join(str(error).split())
    return text if len(text) <= 160 else "..." + text[-160:]


def number(state: Any) -> int:
    """Returns the number under which the checkpoint of a state is kept."""
    return int(state.step) + int(state.epochs)


def latest(directory: Path) -> int | None:
    """Returns the newest complete checkpoint of a directory, or None."""
    numbers = [int(p.name) for p in directory.glob("*") if p.name.isdigit()]
    return max(numbers, default=None)


def _crc(state) -> int:
    """CRC-32 over all arrays of a pytree, in order."""
    crc = 0
    for array in jax.tree.leaves(state):
        crc = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, crc)
    return crc
