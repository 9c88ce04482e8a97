"""The cache of decoded images stays below its size; what was used last stays."""

import os

import numpy as np
import pytest

from vgg_jax.data import decoded_cache
from vgg_jax.errors import ConfigError

BYTES = 300_000


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Room for three arrays and the headers of their files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("VGG_JAX_CACHE_GB", "0.001")
    return tmp_path / "vgg_jax" / "decoded"


def store(name, size=BYTES):
    decoded_cache.store(name, {"images": np.zeros(size, np.uint8)})


def age(cache):
    """Makes the files older by an hour, in the order of their times."""
    for path in cache.iterdir():
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 3600 * 10**9))


def names(cache):
    return {path.stem for path in cache.iterdir()}


def test_the_least_recently_used_goes_first(cache):
    for name in "abc":
        store(name)
        age(cache)
    assert decoded_cache.load("a")["images"].nbytes == BYTES  # used again
    store("d")
    assert names(cache) == {"a", "c", "d"}
    assert sum(path.stat().st_size for path in cache.iterdir()) <= 1_000_000


def test_what_alone_exceeds_it_is_not_kept_and_drives_nothing_out(cache):
    store("a")
    store("huge", 1_000_001)
    assert names(cache) == {"a"}


def test_leftovers_of_killed_processes_count(cache):
    store("a")
    (cache / "b.123.part").write_bytes(bytes(900_000))
    age(cache)
    store("c")
    assert names(cache) == {"a", "c"} or names(cache) == {"c"}


def test_a_file_in_use_is_read_to_its_end(cache):
    store("a")
    age(cache)
    with open(cache / "a.npz", "rb") as file, np.load(file) as arrays:
        for name in "bcd":
            store(name)
        assert names(cache) == {"b", "c", "d"}
        assert arrays["images"].nbytes == BYTES


def test_zero_switches_it_off(cache, monkeypatch):
    store("a")
    monkeypatch.setenv("VGG_JAX_CACHE_GB", "0")
    store("b")
    assert names(cache) == {"a"} and decoded_cache.load("a") is None


@pytest.mark.parametrize("text", ["10GB", "-1", "nan"])
def test_a_size_that_is_no_number_is_told(text, cache, monkeypatch):
    """Before anything is decoded: when it is looked for."""
    monkeypatch.setenv("VGG_JAX_CACHE_GB", text)
    with pytest.raises(ConfigError, match=f"VGG_JAX_CACHE_GB='{text}' is not a number"):
        decoded_cache.load("a")
