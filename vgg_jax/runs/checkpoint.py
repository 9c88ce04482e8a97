"""Checkpoints: Orbax, asynchronous, atomic and durable, checked when read."""

import contextlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from vgg_jax import files
from vgg_jax.errors import RunError
from vgg_jax.runs import checkpoint_reader, checkpoint_record, durable
from vgg_jax.runs.checkpoint_record import Damaged, Record

State = TypeVar("State")  # a pytree with `params`, `step` and `epochs`
_REMOVED = ".removed"  # how the name of a checkpoint ends that is being removed
_DAMAGED = "damaged"  # directory beside that of the checkpoints


class NotFinite(RunError):
    """The state to save holds NaN or infinity."""


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which does not read metrics itself: damaged ones would raise."""

    def metrics(self, step: int) -> None:
        """Returns nothing; `Checkpoints.record` has them."""
        del step


class Checkpoints:
    """The checkpoints of a run: the last two and the best.

    They are numbered by updates made plus epochs finished, so that the states before
    and after the validation that ends an epoch have numbers of their own.

    A checkpoint appears under its number once it is complete, and an older one goes
    when the disk has it; a crash, a full disk and a power cut leave the earlier ones as
    they were.

    Args:
        directory: created if missing.
        monitor: key of the metric that decides which is best; "loss" is best when
            low, everything else when high. Ties go to the later one.
        facts: "config", "data", "environment" and "init" of `Record`, kept with each.
        before: files that must be on the disk before a checkpoint is.
    """

    def __init__(
        self,
        directory: Path,
        *,
        monitor: str = "accuracy",
        facts: Mapping[str, Any] | None = None,
        before: Sequence[Path] = (),
    ) -> None:
        self.directory = Path(directory).absolute()
        self._monitor, self._facts = monitor, dict(facts or {})
        self.directory.mkdir(parents=True, exist_ok=True)
        self._manager = _Manager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                create=False,
                multiprocessing_options=checkpoint_reader.alone(),
                temporary_path_class=durable.commit(before, then=self._remove_older),
                cleanup_tmp_directories=True,
            ),
        )
        for path in self.directory.glob(f"*{_REMOVED}"):
            shutil.rmtree(path, ignore_errors=True)
        ranked = []
        for number in checkpoint_record.numbers(self.directory):
            with contextlib.suppress(Damaged):  # told when one is restored
                ranked += self._ranked(number)
        self._best_quality, self._best = max(ranked, default=(-np.inf, None))

    def _ranked(self, number: int) -> list[tuple[float, int]]:
        """Returns quality and number of a checkpoint, if it has metrics."""
        metrics = self.record(number).metrics
        return [(self._quality(metrics), number)] if metrics else []

    def _quality(self, metrics: Mapping[str, float]) -> float:
        return checkpoint_record.quality(metrics, self._monitor)

    def _remove_older(self) -> None:
        """Removes all but the last two and the best, each by one rename first.

        So that a kill leaves none of them in part under its number.
        """
        numbers = checkpoint_record.numbers(self.directory)
        for number in set(numbers) - {*numbers[-2:], self._best}:
            path = self.directory / str(number)
            with contextlib.suppress(OSError):  # it is removed at another time
                shutil.rmtree(path.rename(path.with_name(path.name + _REMOVED)))

    def record(self, number: int) -> Record:
        """Returns what is known of a checkpoint.

        Raises:
            Damaged, OSError: as `checkpoint_record.read`.
        """
        return checkpoint_record.read(self.directory / str(number))

    def save(
        self,
        state: Any,
        metrics: Mapping[str, float] | None = None,
        seconds: float = 0.0,
    ) -> bool:
        """Starts saving a copy of `state`; returns before it is on disk.

        Args:
            state: numpy or JAX arrays.
            metrics: of the validation split; only such a checkpoint can be the best.
            seconds: spent so far on an epoch that is not finished.

        Returns:
            Whether it is the best so far.

        Raises:
            NotFinite: `state.params` are not finite; nothing was saved.
            RunError: this or an earlier save failed (a full disk, say).
        """
        state = jax.tree.map(lambda a: np.array(a, copy=True), jax.device_get(state))
        if not all(np.isfinite(a).all() for a in jax.tree.leaves(state.params)):
            raise NotFinite(f"the weights after step {state.step} are not finite")
        record = Record(
            crc32=checkpoint_reader.crc32(state),
            metrics=metrics and {key: float(x) for key, x in metrics.items()},
            seconds=seconds,
            **self._facts,
        )
        parts: dict[str, Any] = {
            "state": ocp.args.StandardSave(state),
            checkpoint_record.ITEM: ocp.args.JsonSave(record._asdict()),
        }
        self.wait()  # what removes older ones must not see this one's rank yet
        quality = self._quality(metrics) if metrics else -np.inf
        best = metrics is not None and quality >= self._best_quality
        if best:
            self._best_quality, self._best = quality, number(state)
        arguments = ocp.args.Composite(**parts)
        self._guard(
            lambda: self._manager.save(number(state), args=arguments, force=True)
        )
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
                f"{checkpoint_reader.reason(error)}; the last good one is "
                f"{'none' if good is None else good}; make room or mend the directory "
                "and run the same command again"
            ) from error

    def latest(self) -> int | None:
        """Returns the newest complete checkpoint, or None."""
        return checkpoint_record.latest(self.directory)

    def best(self) -> int | None:
        """Returns the best complete checkpoint by the monitored metric, or None.

        Raises:
            Damaged: the metrics of one are, so that nobody knows which is best.
        """
        self.wait()
        numbers = checkpoint_record.numbers(self.directory)
        ranked = [pair for number in numbers for pair in self._ranked(number)]
        return max(ranked, default=(None, None))[1]

    def restore(self, number: int, like: State) -> State:
        """Returns a checkpoint's state; see `checkpoint_reader.restore`."""
        return checkpoint_reader.restore(self.directory / str(number), like)

    def restore_latest(
        self, like: State, report: Callable[[str], None] = logging.warning
    ) -> State | None:
        """Returns the newest checkpoint that is whole, or None if there is none.

        Damaged ones are moved to `damaged/` beside the checkpoints, and reported.

        Raises:
            RunError: there are checkpoints and none is whole; or one that is whole
                cannot be read.
        """
        return self._restore_first(self.latest, like, report)

    def restore_best(
        self, like: State, report: Callable[[str], None] = logging.warning
    ) -> State | None:
        """Returns the best checkpoint that is whole; else as `restore_latest`."""
        return self._restore_first(self.best, like, report)

    def _restore_first(self, choose, like, report):
        problems = self._set_aside_unranked()
        while (step := choose()) is not None:
            try:
                state = self.restore(step, like)
            except Damaged as error:
                problems.append(str(error))
                self._set_aside(step)
            else:
                if problems:
                    report(f"{'; '.join(problems)}. Going on from {step} instead.")
                return state
        if problems:
            raise RunError(
                f"no checkpoint in {self.directory} is whole: {'; '.join(problems)}"
                ". They were moved to damaged/; the same command starts again without."
            )
        return None

    def _set_aside_unranked(self) -> list[str]:
        """Sets those aside of which nobody knows whether they are the best."""
        problems = []
        for number in checkpoint_record.numbers(self.directory):
            try:
                self.record(number)
            except Damaged as error:
                problems.append(str(error))
                self._set_aside(number)
        return problems

    def _set_aside(self, number):
        damaged = self.directory.parent / _DAMAGED
        files.set_aside(self.directory / str(number), damaged)
        self._manager.reload()

    def close(self) -> None:
        """Waits for what is being saved and lets go of the directory.

        Raises:
            RunError: it could not be saved.
        """
        try:
            self.wait()
        finally:
            with contextlib.suppress(Exception):  # `wait` has told it
                self._manager.close()


def number(state: Any) -> int:
    """Returns the number under which the checkpoint of a state is kept."""
    return int(state.step) + int(state.epochs)
