"""The directory of a run: who may hold it, and what it may be called."""

import os

import pytest

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.runs.workdir import claim


def test_nothing_that_can_be_deleted_lets_a_second_run_in(tmp_path):
    """A lock file under a run could be; then two runs wrote to one directory."""
    with claim(tmp_path, {}):
        for path in tmp_path.rglob("*"):
            path.unlink()
        with pytest.raises(RunError, match="in use by another run"):
            with claim(tmp_path, {}):
                pass
    with claim(tmp_path, {}):
        assert not list(tmp_path.iterdir())  # nor is anything written


def test_a_file_is_locked_where_a_directory_cannot_be(tmp_path, monkeypatch):
    """As on NFS, where `flock` takes a file that is open for writing (EBADF)."""
    import fcntl
    import stat

    flock = fcntl.flock

    def on_nfs(file, operation):
        number = file if isinstance(file, int) else file.fileno()
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(9, "Bad file descriptor")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", on_nfs)
    with claim(tmp_path, {}), pytest.raises(RunError, match="in use"):
        with claim(tmp_path, {}):
            pass


@pytest.mark.parametrize("name", ["train[:50%]", "a\\b", "a\nb", os.fsdecode(b"\xff")])
def test_a_name_that_orbax_cannot_read_back_is_refused(name, tmp_path):
    """It globs the path as it is: the run trained to the end and could not be read."""
    with pytest.raises(ConfigError, match="Orbax could not .*--workdir") as error:
        with claim(tmp_path / name, {}):
            pass
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a b", "a=1,b=2", "a%20b", "a*b", "a]", "日本"])
def test_other_names_are_fine(name, tmp_path):
    """`benchmarks.faults` trains and resumes in each of them."""
    with claim(tmp_path / name, {}):
        assert (tmp_path / name).is_dir()
