"""Standard output that is closed, full or narrow in letters."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vgg_jax import errors
from vgg_jax.terminal import Lasting, lasting_output

ROOT = Path(__file__).resolve().parents[1]


def test_a_closed_pipe_takes_everything_and_says_nothing(capfd):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe:
        stream = Lasting(pipe)
        stream.write("x" * 100_000)  # beyond the buffer
        stream.flush()
        stream.write("more")
        stream.flush()
    assert capfd.readouterr().err == ""


def test_a_full_disk_is_said_once(capfd):
    with open("/dev/full", "w") as full:
        stream = Lasting(full)
        for _ in range(2):
            stream.write("text")
            stream.flush()
    said = "output cannot be written (No space left on device): going on without it\n"
    assert capfd.readouterr().err == said


def test_letters_that_an_encoding_lacks_are_replaced():
    raw = io.BytesIO()
    stream = Lasting(io.TextIOWrapper(raw, encoding="ascii"))
    assert stream.write("█ 50%") == 5 and stream.encoding == "ascii"
    stream.flush()
    assert raw.getvalue() == b"? 50%"


def test_output_that_is_not_there_stays_so(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with lasting_output():
        print("nowhere")
        assert sys.stdout is None and isinstance(sys.stderr, Lasting)
    assert not isinstance(sys.stderr, Lasting)


@pytest.mark.parametrize(
    "error, line",
    [
        (OSError(28, "No space left on device", "/x/y"), "/x/y: No space left on dev"),
        (OSError(24, "Too many open files"), "a: Too many open files"),
        (MemoryError(), "a: out of memory"),
    ],
)
def test_what_the_system_refuses_is_one_line(error, line):
    with pytest.raises(errors.RunError, match=f"^{line}.*What was saved stays"):
        with errors.system_errors("a", errors.RESUMES):
            raise error


CLOSED = """
import os, sys
from vgg_jax.terminal import lasting_output
with lasting_output():
    file = open(sys.argv[1], "w")
    print("progress", flush=True)
    os.write(2, b"said by a library")
    assert file.fileno() > 2
"""


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-"])
def test_no_file_takes_the_place_of_a_closed_output(closing, tmp_path):
    """What is printed went into the next file that was opened, a run's own."""
    file = tmp_path / "file"
    command = f'"{sys.executable}" -c \'{CLOSED}\' "{file}" {closing}'
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True)
    assert done.returncode == 0 and file.read_text() == ""
