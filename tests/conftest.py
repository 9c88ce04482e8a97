"""Every test runs with the flags and signals of the program and a cache of its own.

JAX is strict here: no dtype is promoted and no array broadcast unless the code says so.
"""

import os
import signal
import tempfile

import jax

from vgg_jax import backend


def pytest_configure(config):
    """Before any test module is imported: one of them may start JAX as it loads."""
    cache = tempfile.TemporaryDirectory(prefix="vgg_jax-tests-")
    config.add_cleanup(cache.cleanup)
    os.environ["XDG_CACHE_HOME"] = cache.name
    backend.configure()
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    # A shell's background job, and so what it starts, ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
