"""When tracing begins and ends; `test_final_evaluation.py` reads a real trace."""

import jax
import pytest

from vgg_jax.training.profile import Profile


@pytest.mark.parametrize(
    "asked, steps, traced",
    [
        (0, 20, None),  # not asked for
        (3, 20, (5, 8)),  # the first five steps compile and warm up
        (3, 8, (5, 8)),  # ends with the run
        (3, 6, (5, 6)),  # the run ends first
        (3, 5, None),  # nothing to trace
    ],
)
def test_the_steps_that_are_traced(asked, steps, traced, tmp_path, monkeypatch):
    events, now = [], 0
    profiler = jax.profiler
    monkeypatch.setattr(profiler, "start_trace", lambda *_, **__: events.append(now))
    monkeypatch.setattr(profiler, "stop_trace", lambda: events.append(now))
    profile = Profile(tmp_path, asked)
    for now in range(steps):  # noqa: B007
        profile()
    now = steps
    profile.close()
    assert events == list(traced or ())
