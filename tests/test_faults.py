"""The fault injector and the table of wrong inputs, in their quick parts."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_few_faults_lose_nothing(tmp_path):
    """`python -m benchmarks.faults` injects hundreds; results/faults has its table."""
    log = tmp_path / "faults.jsonl"
    quick = ("--only=aimed,damage", "--share=0.006", f"--log={log}")
    done = run("benchmarks.faults", *quick)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(log.read_text().splitlines()) >= 4


@pytest.mark.slow
def test_wrong_inputs_get_one_line():
    done = run("benchmarks.bad_inputs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| error: ") >= 40
