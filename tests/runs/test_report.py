"""The page of a run: complete, self-contained, also before the end."""

import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from vgg_jax.cli import command
from vgg_jax.cli import report as report_command
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.runs import checked_json, comparison, curves, figures, gallery, report
from vgg_jax.runs.run_record import RunRecord


def run_command(*arguments):
    """What `vgg report` does, its errors raised."""
    report_command.run(command.parser_of("report").parse_args(arguments))


CLASSES = ("cat", "dog", "frog")


def make_run(path, *, finished=True, lr=0.1, epochs=5, classes=CLASSES):
    """A workdir as a run of three classes leaves it."""
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
                "per_class": dict.fromkeys(classes, 0.8),
                "confusion": [[8, 1, 1], [1, 8, 1], [1, 1, 8]],
            },
            "classes": list(classes),
            "checkpoint": "best",
            "epoch": epochs,
            "step": 50,
            "seconds": 300.0,
            "environment": {"device": "2 <CPU> cores", "command": "python main.py"},
        }
        (path / "result.json").write_text(checked_json.dumps(result))
    return path


class Checker(HTMLParser):
    """Every tag closed in order, and what the page would fetch."""

    VOID = {"meta", "img", "br", "path", "use", "rect", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.tags, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.look_at(attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.look_at(attributes)

    def look_at(self, attributes):
        for key, value in attributes:
            assert not key.startswith("on")
            if key in ("src", "href", "xlink:href"):
                self.links.append(value)

    def handle_data(self, data):
        self.text += data

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_a_file_of_the_user_is_not_replaced_unasked(tmp_path):
    make_run(tmp_path / "run")
    (tmp_path / "notes.html").write_text("mine")
    arguments = f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'notes.html'}"
    with pytest.raises(ConfigError, match="--overwrite"):
        run_command(*arguments)
    assert (tmp_path / "notes.html").read_text() == "mine"
    run_command(*arguments, "--overwrite")
    assert "<html" in (tmp_path / "notes.html").read_text()


def test_a_finished_run(tmp_path):
    text = report.write(make_run(tmp_path / "mine")).read_text()
    page = Checker(text)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "81.25%" in text and "5 min 00 s" in text and "python main.py" in text
    assert "2 &lt;CPU&gt; cores" in text
    assert page.tags.count("svg") >= 5
    assert "test top-5" not in text  # of three classes it is 100%
    assert text.count("python main.py") == 1 and "includes compiling" in text
    assert "page.html" not in page.links
    (tmp_path / "mine" / report.EXPORTED).write_text("")
    assert "page.html" in Checker(report.write(tmp_path / "mine").read_text()).links
    assert "learning rate drops" in text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


@pytest.mark.parametrize(
    "epochs, saved, said",
    [(0, 0, "not finished"), (5, 44, "not finished"), (5, 55, "not tested yet")],
)
def test_a_run_without_a_result(tmp_path, epochs, saved, said):
    """Trained is what is saved: a full disk may have come after the last row."""
    path = make_run(tmp_path / "mine", finished=False)
    (path / "checkpoints" / str(saved)).mkdir(parents=True)
    rows = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join(rows[:epochs]))
    text = report.write(path).read_text()
    Checker(text)
    assert said in text


def test_a_comparison_names_what_differs(tmp_path):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b", finished=False, lr=0.3)
    text = comparison.page([RunRecord(a), RunRecord(b)])
    Checker(text)
    after = text[text.index("Where the configs differ") :]
    assert re.findall(r"<td>([^<]*)</td>", after) == ["lr", "0.1", "0.3"]


def test_seeds_of_a_setting_are_one_line_and_the_best_comes_first(tmp_path):
    """Mean and standard deviation of 0.6 and 0.8, by hand: 70 +- 14.14."""
    workdirs = []
    for lr, seed, accuracy in ((0.1, 0, 0.5), (0.3, 0, 0.6), (0.3, 1, 0.8)):
        workdir = make_run(tmp_path / f"{lr},seed={seed}", lr=lr, epochs=1)
        config = json.loads((workdir / "config.json").read_text()) | {"seed": seed}
        (workdir / "config.json").write_text(json.dumps(config))
        row = json.loads((workdir / "metrics.jsonl").read_text())
        row["val_accuracy"] = accuracy
        (workdir / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        workdirs.append(workdir)
    report.write(workdirs[1])
    text = comparison.page([RunRecord(w) for w in workdirs], tmp_path)
    table = re.search(r'<table class="numbers settings">.*?</table>', text, re.S)[0]
    cells = re.findall(r"<td>([^<]*)</td>", table)
    assert cells[:2] == ["lr=0.3 ★ best", "70.00 ± 14.14"] and cells[4] == "lr=0.1"
    links = [link for link in Checker(text).links if not link.startswith("#")]
    assert links == ["0.3%2Cseed%3D0/report.html"]
    assert text.count('<input type="checkbox" checked') == 2  # one legend
    points = json.loads(html.unescape(re.search(r'data-points="(.*?)"', text)[1]))
    assert points["series"][0]["values"] == ["70 ± 14"]


def test_what_is_kept_of_a_pair_of_classes_is_what_its_count_opens(tmp_path):
    """Sixty dogs are taken for cats, one frog for a dog: 24 + none, and 1."""
    labels = np.array([1] * 60 + [2], np.int32)
    logits = np.zeros((61, 3), np.float32)
    logits[:60, 0], logits[60, 1] = np.linspace(5, 4, 60), 1
    shown = gallery.collect(
        logits=logits,
        labels=labels,
        pictures=lambda index: np.full(
            (len(index), 4, 4, 3), index[:, None, None, None]
        ),
        samples=np.zeros((1, 4, 4, 3)),
        filters=np.zeros((3, 3, 3, 1), np.float32),
        explain=lambda pictures, guesses: np.full((len(pictures), 4, 4), 0.5),
    )
    assert shown.mistakes.tolist() == [*range(24), 60]
    assert shown.heat is not None and shown.heat.shape == (24, 4, 4)
    workdir = make_run(tmp_path / "run")
    gallery.save(workdir, shown._replace(pictures=shown.pictures.astype(np.uint8)))
    text = report.write(workdir).read_text()
    opens = lambda key: text[text.index(f'id="{key}"') :].partition("<div popover")[0]
    assert "The 24 most confident" not in opens("cell-2-1")
    assert opens("cell-1-0").count('class="heat"') == 24
    assert "kept no picture" in opens("cell-0-2")


def test_a_directory_without_a_run_is_told(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        RunRecord(tmp_path)


def test_a_page_that_cannot_be_written_is_told(tmp_path):
    path = make_run(tmp_path / "mine")
    with pytest.raises(ConfigError, match="no directory"):
        run_command(f"--workdir={path}", f"--out={tmp_path / 'no' / 'such.html'}")
    (path / report.REPORT).mkdir()
    with pytest.raises(RunError, match="--out"):
        run_command(f"--workdir={path}")


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
    text = figures.bars(["a"], [0.5], title="t", x="x")
    assert "currentColor" in text and "#010203" not in text


HOSTILE = (
    "<img src=x onerror=\"document.title='ran'\">",
    "\" onload=document.title='ran' '",
    r"$\foo$ $x_{$ {{ 7 * 7 }} {% x %} -->" + "long" * 50,
)


def with_gallery(workdir):
    """Adds four samples, four filters and one mistake: a dog taken for a cat."""
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
    gallery.save(workdir, shown)
    return workdir


def test_hostile_names_are_text(tmp_path):
    """Of classes and of workdirs, in the page, its figures and its attributes."""
    runs = [with_gallery(make_run(tmp_path / n, classes=HOSTILE)) for n in HOSTILE]
    page = Checker(report.write(runs[0]).read_text())
    for name in HOSTILE:  # a bar, the row and the column of the confusion matrix
        assert page.text.count(figures.shorten(name)) >= 3
    assert HOSTILE[0] in page.text
    page = Checker(comparison.page([RunRecord(run) for run in runs]))
    assert "img" not in page.tags and page.tags.count("script") == 1  # the page's own
    for name in HOSTILE:  # the table's row and the legend
        assert figures.shorten(name) in page.text and name in page.text
        figure = figures.bars(["a"], [0.5], title=figures.shorten(name), x=name)
        assert "img" not in Checker(figure).tags


@pytest.mark.parametrize("name", ["_underscore", "\u732b \U0001f408", "_", "%s {x} \\"])
def test_a_name_of_any_script_is_drawn_as_it_is(name):
    line = curves.Line([1, 2], [0.5, 0.1])
    legend = curves.curves(
        {name: line, "b": line}, title=name, x="x", y="y", with_legend=True
    )
    bars = figures.bars([name], [0.5], title="t", x="x")
    assert Checker(legend).text.count(name) == 2 and name in Checker(bars).text


def test_a_long_name_keeps_its_ends_and_the_figure_its_width():
    """The viewBox of 300 letters is about that of 33."""
    width = lambda name: float(
        re.search(
            r'viewBox="0 0 ([\d.]+)', figures.bars([name], [0.5], title="", x="")
        )[1]
    )
    assert figures.shorten("x" * 300 + "end").endswith("xend")
    assert width("x" * 300) == pytest.approx(width("x" * 33), rel=0.01)


def test_labels_of_a_logarithmic_axis_are_numbers():
    line = {"lr": curves.Line([1, 2], [0.1, 0.001])}
    text = curves.curves(line, title="t", x="x", y="y", log=True)
    assert "1e\N{MINUS SIGN}02" in Checker(text).text and "$" not in text


def test_a_workdir_of_bytes_that_are_no_text(tmp_path):
    run = make_run(tmp_path / os.fsdecode(b"run\xff"))
    other = make_run(tmp_path / "other", lr=0.2)
    assert "<h1>run?</h1>" in report.write(run).read_text()
    text = comparison.page([RunRecord(run), RunRecord(other)])
    assert "run?" in Checker(text).text and text.encode("utf-8")


def test_runs_of_one_name_are_told_apart(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
    runs = [make_run(tmp_path / folder / "run") for folder in "ab"]
    text = Checker(comparison.page([RunRecord(run) for run in runs])).text
    assert all(str(run) in text for run in runs)


def drawn_names(text):
    """Class names of the confusion matrix, from its two axes."""
    table = text[text.index('aria-label="confusion matrix"') :]
    table = table[: table.index("</table>")]
    return re.findall(r'<th scope="\w+">(?:<span>)?(cat|dog|frog|\d)<', table)


@pytest.mark.parametrize("absent, older", [(0, "0 dog frog"), (1, "cat 1 frog")])
def test_an_absent_class_shifts_no_name(absent, older, tmp_path):
    """Row and column i are class i; an older result.json names the present ones only.

    The mistake of `with_gallery` is a dog taken for a cat.
    """
    workdir = with_gallery(make_run(tmp_path / "run"))
    result = checked_json.loads((workdir / "result.json").read_bytes())
    result["test"]["confusion"][absent] = [0, 0, 0]
    del result["test"]["per_class"][CLASSES[absent]]
    for names in (CLASSES, older.split()):
        (workdir / "result.json").write_text(checked_json.dumps(result))
        text = report.write(workdir).read_text()
        axes = [name for name in drawn_names(text) if name in names]
        assert axes == [*names, *names]
        caption = re.search(r"<figure>.*?<b>(\w+)</b>.*?is (\w+)", text, re.S)
        assert caption.groups() == (names[0], names[1])
        result.pop("classes", None)


def test_the_names_in_the_results_kept_here():
    """Of every version so far; CIFAR-10's as the sample's own file has them."""
    root = Path(__file__).resolve().parents[2]
    labels = root / "data/cifar10_sample/1.0.0/label.labels.txt"
    names = labels.read_text().split()
    files = sorted((root / "results").rglob("result.json"))
    assert files
    for file in files:
        result = json.loads(file.read_text())
        known = {*result["test"]["per_class"]}
        got = report.class_names(result)
        assert got == [n if n in known else str(i) for i, n in enumerate(names)]


# Titles itself: figures drawn, pictures shown, whether the page is wider than a phone,
# lines that the legend's first box hides, and the values under a pointer at the left.
LOOK = """<script>
const first = document.querySelector("svg[data-points]");
const box = first.getBoundingClientRect();
const at = { clientX: box.left + 1, clientY: box.top + 50 };
first.dispatchEvent(new PointerEvent("pointermove", at));
const said = document.getElementById("values").innerText.split(/[\\n:]/)[0];
document.querySelector(".legend input").click();
const hidden = [...first.querySelectorAll(".series-0")].filter(
  line => getComputedStyle(line).display === "none").length;
document.title = [
  [...document.querySelectorAll('svg')].filter(
    s => s.getBoundingClientRect().height > 50).length,
  [...document.querySelectorAll('img')].filter(i => i.naturalWidth > 0).length,
  document.documentElement.scrollWidth > innerWidth, hidden, said,
]</script>"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium")
@pytest.mark.parametrize("runs, drawn, pictures", [(1, 6, 4 + 4 + 1 + 1), (2, 4, 0)])
def test_in_a_browser(tmp_path, runs, drawn, pictures):
    """Loads offline in headless Chromium: all is drawn, nothing on the console.

    Nor does any of the hostile names run, which would change the title.
    """
    workdirs = [
        make_run(tmp_path / HOSTILE[2 - i], lr=0.1 + i, classes=HOSTILE)
        for i in range(runs)
    ]
    with_gallery(workdirs[0])
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
            "--window-size=390,900",
            f"--user-data-dir={tmp_path / 'profile'}",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)[1]
    assert title == f"{drawn},{pictures},false,1,epoch 1"
    assert "CONSOLE" not in done.stderr
