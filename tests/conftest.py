"""Every test runs with the flags of the program and a cache of its own."""

import pytest

from vgg_jax import backend


@pytest.fixture(scope="session", autouse=True)
def _program_setup(tmp_path_factory):
    """XLA's flags as in `main.py`; caches go to the session's directory."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.getbasetemp() / "cache"
        patch.setenv("XDG_CACHE_HOME", str(cache))
        backend.configure()
        yield
