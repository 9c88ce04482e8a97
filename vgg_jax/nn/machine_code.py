"""Machine code of kernels: compiled by LLVM for this CPU, and kept for the next start.

llvmlite brings LLVM along, so that no compiler has to be there. What was compiled is
kept in `~/.cache/vgg_jax/kernels`, next to XLA's programs: emitting and compiling the
kernels of a training step takes two seconds, loading them a few milliseconds.
"""

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
from llvmlite import binding

from vgg_jax import files
from vgg_jax.errors import ConfigError

_UNUSED = 90 * 24 * 3600.0  # seconds after which code is dropped
_DIGEST = hashlib.sha256().digest_size  # bytes before the code, by which it is checked


def loaded(name: str, emitted: Callable[[], Any], sources: str) -> Any:
    """Loads the code of a module, compiled now or at an earlier start.

    Args:
        name: of the module: there is one with it.
        emitted: returns the module, an `llvmlite.ir.Module`; called if none is kept
            of these sources, this LLVM and this CPU.
        sources: a digest of what emits it; "": its code is not kept.

    Returns:
        An engine, which has the addresses of its functions as long as it lives.
    """
    kept = _kept(name, sources)
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


def _kept(name: str, sources: str) -> Path | None:
    """Returns where the code of a module is kept; None: nowhere."""
    if not sources:
        return None
    llvm = *llvmlite.__version__.split("."), *map(str, binding.llvm_version_info)
    parts = name, sources, *llvm, binding.get_host_cpu_name(), _features()
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    with contextlib.suppress(ConfigError):  # there is no home
        return files.cache_directory() / "kernels" / f"{name}-{key}"
    return None


def _read(kept: Path | None) -> bytes | None:
    """Returns code that was kept; None: there is none, or it is damaged."""
    if not kept:
        return None
    with contextlib.suppress(OSError):
        content = kept.read_bytes()
        digest, code = content[:_DIGEST], content[_DIGEST:]
        if code and hashlib.sha256(code).digest() == digest:
            with contextlib.suppress(OSError):  # of another user, say
                os.utime(kept)  # it is used
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
        except BaseException:
            os.unlink(part)
            raise
        _drop_unused(kept.parent)


def _drop_unused(directory: Path) -> None:
    oldest = time.time() - _UNUSED
    for path in directory.iterdir():
        if path.stat().st_mtime < oldest:
            path.unlink()
