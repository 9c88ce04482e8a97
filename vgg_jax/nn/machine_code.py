"""Machine code of kernels: compiled by LLVM for this CPU, and kept for the next start.

llvmlite brings LLVM along, so that no compiler has to be there. What was compiled is
kept in `~/.cache/vgg_jax/kernels`, next to XLA's programs: emitting and compiling the
kernels of a training step takes two seconds, loading them a few milliseconds.
"""

import contextlib
import functools
import hashlib
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llvmlite import binding

from vgg_jax import files
from vgg_jax.errors import ConfigError

_DIGEST = hashlib.sha256().digest_size  # bytes before the code, by which it is checked


def loaded(name: str, emitted: Callable[[], Any]) -> Any:
    """Loads the code of a module, compiled now or at an earlier start.

    Args:
        name: of the module: there is one with it.
        emitted: returns the module, an `llvmlite.ir.Module`; called if none is kept
            that these sources, this LLVM and this CPU made.

    Returns:
        An engine, which has the addresses of its functions as long as it lives.
    """
    kept = _kept(name)
    code = _read(kept)
    if code is None:
        code = _compiled(str(emitted()))
        _keep(code, kept)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _target())
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


def _compiled(assembly: str) -> bytes:
    module = binding.parse_assembly(assembly)
    module.verify()
    return _target().emit_object(module)


def _target() -> binding.TargetMachine:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=_features(), opt=2, jit=True
    )


def _features() -> str:
    return f"{binding.get_host_cpu_features().flatten()},-prefer-256-bit"


def _kept(name: str) -> Path | None:
    """Returns where the code of a module is kept; None: nowhere."""
    sources = _sources()
    if not sources:
        return None
    parts = name, sources, version("llvmlite"), binding.get_host_cpu_name(), _features()
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    with contextlib.suppress(ConfigError):  # there is no home
        return files.cache_directory() / "kernels" / f"{name}-{key}"
    return None


@functools.cache
def _sources() -> str:
    """Returns a digest of this package's sources; "" where they are no files."""
    digest = hashlib.sha256()
    try:
        paths = sorted(Path(__file__).parent.glob("*.py"))
        for path in paths:
            digest.update(path.read_bytes())
    except OSError:
        return ""
    return digest.hexdigest() if paths else ""


def _read(kept: Path | None) -> bytes | None:
    """Returns code that was kept; None: there is none, or it is damaged."""
    with contextlib.suppress(OSError):
        content = kept.read_bytes() if kept else b""
        digest, code = content[:_DIGEST], content[_DIGEST:]
        if code and hashlib.sha256(code).digest() == digest:
            return code
    return None


def _keep(code: bytes, kept: Path | None) -> None:
    """Keeps code, where that is possible; others may be doing the same."""
    if not kept:
        return
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        number, part = tempfile.mkstemp(dir=kept.parent)
        try:
            with open(number, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(part, kept)
        except OSError:
            os.unlink(part)
