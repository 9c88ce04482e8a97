"""`vgg doctor`: what it says of a machine, and of its speed."""

import pytest

from vgg_jax import backend, machine
from vgg_jax.cli import command, doctor
from vgg_jax.training import speed


def run(*arguments):
    doctor.run(command.parser_of("doctor").parse_args(arguments))


@pytest.mark.parametrize(
    "flags, kind",
    [
        ("fpu sse2 avx2 avx512f avx512_bf16 amx_bf16 amx_tile", "AMX"),
        ("fpu sse2 avx2 avx512f avx512_bf16", "AVX512_BF16"),
        ("fpu avx512f avx2", "AVX512"),
        ("fpu avx2", "AVX2"),
        ("fpu avx", ""),
        ("", ""),
    ],
)
def test_the_kind_of_a_cpu(flags, kind, monkeypatch):
    monkeypatch.setattr(machine, "_cpuinfo", lambda key: flags)
    assert machine.cpu_kind.__wrapped__() == kind


def test_facts_and_no_measurement(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(doctor, "measured", None)
    (tmp_path / "cifar10").mkdir()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    run("--quick")
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["dtype=auto"] == f"is {backend.compute_dtype('auto')}"
    assert "jax 0." in told["versions"] and "cpu:0" in told["devices"]
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cifar10"))
    facts = dict(doctor.facts())
    assert facts["data sets"].endswith("none is there yet")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "x"))
    assert dict(doctor.facts())["data sets"].endswith("x, which does not exist yet")


@pytest.mark.parametrize(
    "auto, dtypes", [("float32", ["float32"]), ("bfloat16", ["float32", "bfloat16"])]
)
def test_slow_types_are_not_measured(auto, dtypes, monkeypatch):
    seen = []
    monkeypatch.setattr(backend, "compute_dtype", lambda name: auto)
    monkeypatch.setattr(doctor, "measured", lambda dtype: seen.append(dtype) or "")
    run()
    assert seen == dtypes


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "_PARTS", {"frying": ("no_such_package", "pan")})
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/bin/x")
    missing = [text for name, text in doctor.facts() if name == "missing"]
    assert missing == [
        "an NVIDIA GPU is idle here: pip install 'vgg_jax[cuda]'",
        "frying: pip install 'vgg_jax[pan]'",
    ]


@pytest.mark.parametrize(
    "kind, images, end",
    [
        ("known", 70, "; such a machine reaches 80% when idle"),
        ("known", 30, "; such a machine reaches 80% when idle: what else runs here?"),
        ("unknown", 30, ""),
    ],
)
def test_speed_beside_what_is_reached(kind, images, end, monkeypatch):
    """100 GFLOP/s of products, 1 GFLOP per image."""
    monkeypatch.setattr(doctor, "REACHED", {"known": {"float32": 0.8}})
    monkeypatch.setattr(machine, "kind", lambda: kind)
    monkeypatch.setattr(speed, "product_rate", lambda dtype: 100e9)
    monkeypatch.setattr(speed, "training_rate", lambda dtype: (images, 1e9))
    assert doctor.measured("float32") == (
        f"VGG-16 trains at {images} images/s, {images}% of the 100 GFLOP/s of matrix "
        f"products{end}"
    )


@pytest.mark.slow
def test_it_trains_vgg16():
    """313 MMAC per image: 13 convolutions at 32 px by hand, and 5,120 of the head."""
    images, flop = speed.training_rate("bfloat16")
    convolutions = 9 * sum(
        side**2 * channels * features
        for side, channels, features in (
            (32, 3, 64), (32, 64, 64), (16, 64, 128), (16, 128, 128), (8, 128, 256),
            (8, 256, 256), (8, 256, 256), (4, 256, 512), (4, 512, 512), (4, 512, 512),
            (2, 512, 512), (2, 512, 512), (2, 512, 512),
        )
    )  # fmt: skip
    assert flop == 6 * (convolutions + 5120)
    assert 0 < images < 1e6
