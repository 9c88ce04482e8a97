"""Every test runs with the flags and signals of the program and a cache of its own.

The quick tests, those that run where none are named, compile without LLVM's
optimisations, which is quicker; `pytest -m ""` runs all with them, as a user's program.

JAX is strict here: no dtype is promoted and no array broadcast unless the code says so.
"""

import json
import os
import signal
import tempfile

import jax
import pytest

from vgg_jax import backend, machine
from vgg_jax.runs import manifest

QUICK = "not slow"  # pyproject.toml's choice of tests


def pytest_configure(config):
    """Before any test module is imported: one of them may start JAX as it loads."""
    if not hasattr(config, "workerinput"):  # the workers of xdist share one cache
        cache = tempfile.TemporaryDirectory(prefix="vgg_jax-tests-")
        config.add_cleanup(cache.cleanup)
        os.environ["XDG_CACHE_HOME"] = cache.name
        if config.option.markexpr == QUICK:
            flags = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0"
    backend.configure()
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    # A shell's background job, and so what it starts, ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def cpu():
    """Skips a test that is about XLA:CPU where JAX computes on something else."""
    if jax.default_backend() != "cpu":
        pytest.skip("about XLA:CPU")


def _without_kernels():
    """Takes our kernels away (`nn/fused.py`), as where there is no llvmlite."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "kernel_kind", lambda: "")
        jax.clear_caches()  # which may hold what was traced with them
        yield False
    jax.clear_caches()


@pytest.fixture
def without_kernels(cpu):
    """On a CPU: without our kernels."""
    yield from _without_kernels()


@pytest.fixture(params=[True, False], ids=["kernels", "XLA"])
def kernels(request):
    """With our kernels, where this machine has them, and without."""
    if not request.param:
        yield from _without_kernels()
    elif not machine.kernel_kind() or jax.default_backend() != "cpu":
        pytest.skip("there are none for this machine, or no llvmlite")
    else:
        yield True


@pytest.fixture
def rewrite_record():
    """A function that changes what a checkpoint's record says, by its own sums."""

    def rewrite(workdir, number, **changes):
        saved = workdir / "checkpoints" / str(number)
        file = saved / "record" / "metadata"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        manifest.write(saved)

    return rewrite
