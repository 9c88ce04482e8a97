"""The page of a run: complete, self-contained, also before the end."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from vgg_jax.cli import command
from vgg_jax.cli import report as report_command
from vgg_jax.errors import RunError
from vgg_jax.runs import comparison, figures, gallery, report
from vgg_jax.runs.run_record import RunRecord


def run_command(*arguments):
    """What `vgg report` does, its errors raised."""
    report_command.run(command.parser_of("report").parse_args(arguments))


CLASSES = ("cat", "dog", "frog")


def make_run(path, *, finished=True, lr=0.1, epochs=5):
    """A workdir as a run leaves it."""
    path.mkdir()
    config = {
        "seed": 0,
        "epochs": epochs,
        "lr": lr,
        "data": {"name": "set"},
        "model": {"variant": "D", "batch_norm": True, "dtype": "float32"},
        "schedule": {"name": "plateau"},
    }
    (path / "config.json").write_text(json.dumps(config))
    rows = [
        {
            "kind": "epoch",
            "step": 10 * e,
            "epoch": e,
            "learning_rate": lr if e < 3 else lr / 10,
            "train_loss": 1 / e,
            "train_accuracy": 1 - 1 / e,
            "val_loss": 1.5 / e,
            "val_accuracy": 1 - 1.1 / (e + 1),
            "images_per_second": 100.0,
            "seconds": 60.0,
        }
        for e in range(1, epochs + 1)
    ]
    lines = [json.dumps(row) + "\n" for row in rows]
    (path / "metrics.jsonl").write_text("".join(lines))
    if finished:
        result = {
            "test": {
                "count": 30,
                "accuracy": 0.8125,
                "top5": 1.0,
                "loss": 0.5,
                "per_class": dict.fromkeys(CLASSES, 0.8),
                "confusion": [[8, 1, 1], [1, 8, 1], [1, 1, 8]],
            },
            "checkpoint": "best",
            "epoch": epochs,
            "step": 50,
            "seconds": 300.0,
            "environment": {"device": "2 <CPU> cores", "command": "python main.py"},
        }
        (path / "result.json").write_text(json.dumps(result))
    return path


class Checker(HTMLParser):
    """Every tag closed in order, and what the page would fetch."""

    VOID = {"meta", "img", "br", "path", "use", "rect"}

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.tags = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for key, value in attributes:
            if key in ("src", "href", "xlink:href"):
                self.links.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_a_finished_run(tmp_path):
    text = report.write(make_run(tmp_path / "mine")).read_text()
    page = Checker(text)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "81.25%" in text and "5 min 00 s" in text and "python main.py" in text
    assert "2 &lt;CPU&gt; cores" in text
    assert page.tags.count("svg") >= 6
    assert "learning rate drops" in text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


@pytest.mark.parametrize("epochs", [0, 3])
def test_an_unfinished_run(tmp_path, epochs):
    path = make_run(tmp_path / "mine", finished=False, epochs=epochs)
    text = report.write(path).read_text()
    Checker(text)
    assert "not finished" in text


def test_a_comparison_names_what_differs(tmp_path):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b", finished=False, lr=0.3)
    text = comparison.page([RunRecord(a), RunRecord(b)])
    Checker(text)
    after = text[text.index("Where the configs differ") :]
    assert re.findall(r"<td>([^<]*)</td>", after) == ["lr", "0.1", "0.3"]


def test_a_directory_without_a_run_is_told(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        RunRecord(tmp_path)


def test_a_page_that_cannot_be_written_is_told(tmp_path):
    path = make_run(tmp_path / "mine")
    with pytest.raises(RunError, match="--out"):
        run_command(f"--workdir={path}", f"--out={tmp_path / 'no' / 'such.html'}")


def test_drops_are_between_the_epochs(tmp_path):
    assert RunRecord(make_run(tmp_path / "a")).drops() == [2.5]


def test_calibration_error_by_hand():
    """Guo et al. (2017): bins weighted by their share of |accuracy - confidence|.

    Two images at 0.9, one right: gap 0.4. Two at 0.6, both right: gap 0.4.
    """
    confidence = np.array([0.9, 0.9, 0.6, 0.6])
    right = np.array([1.0, 0.0, 1.0, 1.0])
    assert figures.calibration_error(confidence, right) == pytest.approx(0.4)


def test_the_figures_take_the_colour_of_the_page():
    text = figures.bars({"a": 0.5}, title="t", x="x")
    assert "currentColor" in text and "#010203" not in text


# Titles itself: figures drawn and pictures shown.
LOOK = """<script>document.title = [
  [...document.querySelectorAll('svg')].filter(
    s => s.getBoundingClientRect().height > 50).length,
  [...document.querySelectorAll('img')].filter(i => i.naturalWidth > 0).length,
]</script>"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium")
@pytest.mark.parametrize("runs, drawn, pictures", [(1, 7, 4 + 4 + 1), (2, 4, 0)])
def test_in_a_browser(tmp_path, runs, drawn, pictures):
    """Loads offline in headless Chromium: all is drawn, nothing on the console."""
    workdirs = [make_run(tmp_path / f"run{i}", lr=0.1 + i) for i in range(runs)]
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    shown = gallery.Gallery(
        samples=pixels,
        filters=pixels.transpose(1, 2, 3, 0).astype(np.float32),
        labels=np.array([0, 1, 1], np.int32),
        guesses=np.array([0, 0, 1], np.int32),
        confidence=np.array([0.9, 0.8, 0.7], np.float32),
        mistakes=np.array([1]),
        pictures=pixels[:1],
    )
    gallery.save(workdirs[0], shown)
    path = report.write(workdirs[0])
    if runs > 1:
        path.write_text(comparison.page([RunRecord(workdir) for workdir in workdirs]))
    text = path.read_text()
    path.write_text(text.replace("</body>", LOOK + "</body>"))
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking"
    flags += " --disable-quic --no-first-run --disable-component-update --disable-sync"
    flags += " --enable-logging=stderr --dump-dom"
    done = subprocess.run(
        [
            "chromium",
            *flags.split(),
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path / 'profile'}",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)[1]
    assert title == f"{drawn},{pictures}"
    assert "CONSOLE" not in done.stderr
