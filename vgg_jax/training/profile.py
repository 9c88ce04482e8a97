"""A profiler trace of a few training steps."""

from pathlib import Path

import jax

_FIRST = 5  # steps that pass before: compilation, warm-up


class Profile:
    """Traces `steps` steps into `directory`, for https://ui.perfetto.dev.

    Call it before every training step, and `close` at the end.
    """

    def __init__(self, directory: Path, steps: int) -> None:
        self._directory, self._steps = directory, steps
        self._seen, self._tracing = 0, False

    def __call__(self) -> None:
        if self._seen == _FIRST and self._steps:
            jax.profiler.start_trace(str(self._directory), create_perfetto_trace=True)
            self._tracing = True
        elif self._seen == _FIRST + self._steps:
            self.close()
        self._seen += 1

    def close(self) -> None:
        """Ends a trace that is under way."""
        if self._tracing:
            jax.effects_barrier()
            jax.profiler.stop_trace()
            self._tracing = False
