"""Every test runs on the CPU, with the compiled programs of earlier runs at hand."""

import pytest

from vgg_jax import backend

backend.configure()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Decoded data sets go to a directory of the test session, not the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
