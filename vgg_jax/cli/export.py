"""Writes a network for other programs: StableHLO, ONNX, safetensors, or a page.

    python -m vgg_jax export --to=stablehlo
    python -m vgg_jax export --to=onnx --layout=nchw
    python -m vgg_jax export --weights=speedrun --to=safetensors --dtype=bfloat16
    python -m vgg_jax export --weights=runs/quickstart --to=html --out=classify.html

StableHLO and ONNX take uint8 pictures and return probabilities: the preprocessing is
inside. The page classifies pictures in a browser, offline. docs/export.md says what
each needs.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vgg_jax.cli import weights_option
from vgg_jax.errors import ConfigError, choose
from vgg_jax.files import check_target
from vgg_jax.interop import classifier, onnx_file, page, save, stablehlo, zoo
from vgg_jax.interop.load import load
from vgg_jax.runs.workdir import CONFIG


class _Format(NamedTuple):
    """What a network can become.

    Attributes:
        suffix: of the file.
        save: writes it; the options of the command are its keywords.
        options: those that this format has.
    """

    suffix: str
    save: Callable[..., None]
    options: tuple[str, ...]


FORMATS: Mapping[str, _Format] = {
    "stablehlo": _Format(stablehlo.SUFFIX, stablehlo.save, ("size",)),
    "onnx": _Format(onnx_file.SUFFIX, onnx_file.save, ("size", "layout")),
    "safetensors": _Format(save.SUFFIX, save.save, ("dtype", "convention")),
    "html": _Format(page.SUFFIX, page.save, ("size", "runtime")),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options; those of one format are None unless they are given."""
    add = parser.add_argument
    weights_option.add(parser)
    add("--to", required=True, help=", ".join(FORMATS))
    add("--out", type=Path, help="file to write; default: named after the weights")
    add("--overwrite", action="store_true", help="replace the file if it is there")
    add("--size", type=int, help="height and width of the images, where unknown")
    add("--layout", help=f"of ONNX: {' or '.join(classifier.LAYOUTS)}; default: nhwc")
    add("--dtype", help=f"of safetensors: {', '.join(save.DTYPES)}; default: float32")
    add("--convention", help=f"of safetensors: {', '.join(save.WRITTEN)}")
    add("--runtime", help=f"of html: directory of the npm package {page.PACKAGE}")


def run(options: argparse.Namespace) -> None:
    """Writes the file and prints its path and size.

    Raises:
        ConfigError: an option is wrong or not one of the format, or the file is there.
        RunError: the weights cannot be read, or the file cannot be written.
    """
    wanted = choose(FORMATS, options.to, "--to")
    given = _given(options, wanted)
    path = options.out or _default_path(options.weights, wanted.suffix)
    check_target(path, wanted.suffix, options.overwrite)
    network = load(options.weights)
    if options.to == "html":
        given["facts"] = _facts(options.weights)
    wanted.save(network, path, overwrite=options.overwrite, **given)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    if not network.class_names and options.to != "safetensors":
        print("The weights do not say the names of their classes: they are numbers.")


def _given(options: argparse.Namespace, wanted: _Format) -> dict[str, Any]:
    """Returns the options that were given and are the format's.

    Raises:
        ConfigError: one is another format's.
    """
    every = dict.fromkeys(name for form in FORMATS.values() for name in form.options)
    given = {k: v for k in every if (v := getattr(options, k)) is not None}
    for name in given.keys() - set(wanted.options):
        known = ", ".join(k for k, form in FORMATS.items() if name in form.options)
        raise ConfigError(f"--{name} is an option of --to={known} only")
    return given


def _facts(weights: str) -> dict[str, str]:
    """Returns what the zoo or a finished run says of a network, for the page's card."""
    if card := zoo.cards().get(weights):
        accuracy = card.accuracy[str(card.views)]
        said = f"{accuracy:.2%} of its test images, {_views(card.views)}"
        return {"Trained on": card.dataset, "Accuracy": said, "By": card.command}
    if not (Path(weights) / CONFIG).is_file():
        return {}
    from vgg_jax.runs.run_record import RunRecord  # needs [train], as loading it did

    record = RunRecord(Path(weights))
    if not record.result:
        return {}
    test, views = record.result["test"], _views(record.config.get("views", 1))
    accuracy = f"{test['accuracy']:.2%} of {test['count']:,} test images, {views}"
    return {"Trained on": record.config["data"]["name"], "Accuracy": accuracy}


def _views(count: int) -> str:
    return f"by {count} view{'s' if count > 1 else ''}"


def _default_path(weights: str, suffix: str) -> Path:
    """Returns a path here: `runs/vgg16` -> `vgg16.onnx`."""
    name = Path(weights.rstrip("/")).name
    for ending in (".safetensors", ".pth", ".pt", ".weights.h5", ".h5"):
        name = name.removesuffix(ending)
    return Path(name + suffix)
