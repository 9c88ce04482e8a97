"""The house: arrows point one way, and importing it costs and starts nothing."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vgg_jax"
RANKS = {
    "": 0,
    "nn": 1,
    "data": 2,
    "runs": 2,
    "interop": 3,
    "inference": 4,
    "evaluation": 4,
    "training": 5,
    "cli": 6,
}
# Exports names of all folders, and starts the commands: both are above the ranks.
DOORS = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}
FILES = sorted(set(PACKAGE.rglob("*.py")) - DOORS)
MODULES = [
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for p in FILES
]


def folder(module):
    """`nn` of `vgg_jax.nn.vgg`; the empty string for a file of the root."""
    inner = module.split(".")[1:-1]
    if not inner and (PACKAGE / "/".join(module.split(".")[1:])).is_dir():
        return module.split(".")[1]
    return inner[0] if inner else ""


def imports(path):
    """Modules of this package that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            while parts[0] == "vgg_jax" and len(parts) > 1:
                place = PACKAGE.joinpath(*parts[1:])
                if place.is_dir() or place.with_suffix(".py").is_file():
                    yield ".".join(parts)
                    break
                parts.pop()


def breaches(files):
    """What imports upwards or sideways, as text."""
    for path in files:
        relative = path.relative_to(PACKAGE)
        own = relative.parts[0] if len(relative.parts) > 1 else ""
        for module in imports(path):
            other = folder(module)
            if other != own and RANKS[other] >= RANKS[own]:
                yield f"{relative} ({RANKS[own]}) imports {module} ({RANKS[other]})"


def test_a_file_imports_lower_ranks_or_its_own_folder():
    assert not list(breaches(FILES))


def test_every_folder_has_a_rank():
    inside = {p.parent.relative_to(PACKAGE).as_posix() for p in FILES} - {"."}
    assert inside <= RANKS.keys()


@pytest.mark.parametrize(
    "line, caught",
    [
        ("from vgg_jax.training import step", True),
        ("def f():\n    import vgg_jax.training.step", True),
        ("from vgg_jax.runs.workdir import claim", True),  # a sibling of the same rank
        ("from vgg_jax import errors, files", False),
        ("from vgg_jax.data.batches import order", False),
        ("from vgg_jax.nn import conv", False),
    ],
)
def test_a_wrong_import_would_be_seen(line, caught, monkeypatch, tmp_path):
    path = PACKAGE / "data" / "streaming.py"
    monkeypatch.setattr(Path, "read_text", lambda self: line)
    assert bool(list(breaches([path]))) == caught


def python(code):
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


HEAVY = (
    "tensorflow_datasets",
    "orbax",
    "grain",
    "matplotlib",
    "ml_collections",
    "absl",
    "jax",
)


def test_importing_the_package_loads_nothing_heavy():
    loaded = python("import sys, vgg_jax; print(*sys.modules)").split()
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)


def test_the_start_of_a_run_waits_for_no_matplotlib():
    code = "import sys, vgg_jax.cli.train, vgg_jax.training.loop; print(*sys.modules)"
    assert "matplotlib" not in python(code).split()


def test_importing_any_module_starts_no_backend():
    """Nor does it parse flags, or need a configured machine."""
    code = (
        f"import importlib\nfor name in {MODULES}: importlib.import_module(name)\n"
        "from jax._src import xla_bridge\n"
        "from absl import flags\n"
        "print(len(xla_bridge._backends), 'config' in flags.FLAGS)"
    )
    assert python(code).split() == ["0", "False"]


def test_a_started_backend_would_be_seen():
    code = (
        "import jax; jax.devices()\nfrom jax._src import xla_bridge\n"
        "print(len(xla_bridge._backends))"
    )
    assert int(python(code)) > 0


def test_the_reference_shows_every_module():
    pages = (ROOT / "docs" / "reference").glob("*.md")
    shown = {
        line.removeprefix("::: ").strip()
        for page in pages
        for line in page.read_text().splitlines()
        if line.startswith("::: ")
    }
    files = {m for m, p in zip(MODULES, FILES, strict=True) if p.name != "__init__.py"}
    assert shown == {"vgg_jax", *files}


@pytest.mark.parametrize("directory", ["benchmarks", "examples"])
def test_programs_beside_the_package_import_what_is_there(directory):
    """They are neither type-checked nor run by every gate."""
    files = [*(ROOT / directory).glob("*.py"), *(ROOT / directory).glob("peers/*.py")]
    imports = [
        (file.name, node.module, name.name)
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").partition(".")[0] == "vgg_jax"
        for name in node.names
    ]
    assert not [x for x in imports if not is_there(*x[1:])]


def is_there(module, name):
    try:
        if hasattr(import_module(module), name):
            return True
        return bool(import_module(f"{module}.{name}"))
    except ModuleNotFoundError as error:  # of an optional package
        return not error.name.startswith("vgg_jax")
