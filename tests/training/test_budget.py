"""What exceeds the memory of the device is refused before anything is allocated."""

from types import SimpleNamespace

import pytest
from rich.console import Console

from configs import default
from vgg_jax import memory, mesh
from vgg_jax.errors import ConfigError
from vgg_jax.training import budget, first_state, loop
from vgg_jax.training.config import resolve

# Table 2 of the paper: D has 138 million parameters, at 224 px with 1,000 classes.
D = {"model.variant": "D", "augment.resize": 224, "model.num_classes": 1000}
STATE = 3 * 4 * 138_357_544
MESH = mesh.over(1)


def config(**changes):
    settings = default.get_config()
    settings.update_from_flattened_dict(changes)
    return resolve(settings)


@pytest.mark.parametrize(
    "there, batch_size, fits",
    [
        (STATE + 1, 1, True),
        (STATE - 1, 1, False),  # weights, velocity and gradients alone
        (STATE + 1, 10_000, False),  # more than twice as much with activations
        (None, 10_000, True),  # unknown
    ],
)
def test_a_network_of_the_paper(there, batch_size, fits, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: there)
    made = config(**D, batch_size=batch_size)
    if fits:
        budget.check(made, MESH)
        return
    with pytest.raises(ConfigError) as error:
        budget.check(made, MESH)
    text = str(error.value)
    assert "about 1.7 GB for weights" in text and "1.7 GB are there" in text
    for field in ("model.width=1", f"batch_size={batch_size}", "augment.resize"):
        assert field in text


def test_a_quarter_too_much_is_refused(monkeypatch):
    """What a batch of D keeps by hand from Table 1: outputs of all layers, once.

    What the layers work with is at most a tenth of that in so large a batch.
    """
    stages = ((64, 2, 224), (128, 2, 112), (256, 3, 56), (512, 3, 28), (512, 3, 14))
    values = sum(c * (n * size**2 + (size // 2) ** 2) for c, n, size in stages)
    values += 4096 + 4096 + 1000
    kept = 256 * 4 * values  # float32
    made = config(**D, batch_size=256, **{"model.dtype": "float32"})
    monkeypatch.setattr(memory, "available", lambda: round((STATE + 1.1 * kept) / 1.25))
    budget.check(made, MESH)
    monkeypatch.setattr(memory, "available", lambda: round((STATE + kept) / 1.25))
    with pytest.raises(ConfigError, match="activations"):
        budget.check(made, MESH)


def test_the_limit_of_an_accelerator(monkeypatch):
    device = SimpleNamespace(
        platform="gpu", memory_stats=lambda: {"bytes_limit": STATE - 1}
    )
    gpu = SimpleNamespace(local_devices=[device], size=1)
    monkeypatch.setattr(memory, "available", lambda: 10**15)
    with pytest.raises(ConfigError, match="1.7 GB are there"):
        budget.check(config(**D), gpu)
    device.memory_stats = lambda: None
    budget.check(config(**D), gpu)


def test_shards_are_computed_one_by_one(monkeypatch):
    """16 of 256 images at a time, and devices of a CPU share its memory."""
    monkeypatch.setattr(memory, "available", lambda: STATE + 5 * 10**9)
    with pytest.raises(ConfigError, match="or shards"):
        budget.check(config(**D, batch_size=256), MESH)
    budget.check(config(**D, batch_size=256, shards=16), MESH)
    with pytest.raises(ConfigError, match="are there"):
        four = SimpleNamespace(local_devices=4 * MESH.local_devices, size=4)
        budget.check(config(**D, batch_size=256, shards=16), four)


def test_without_sizes_nothing_is_known(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1)
    budget.check(config(), MESH)
    with pytest.raises(ConfigError, match="32x32"):
        budget.check(config(), MESH, classes=10, image_shape=(32, 32, 3))


@pytest.mark.parametrize(
    "changes",
    [
        {"model.width": 1000.0},
        {"model.num_classes": 10**9},
        {"augment.resize": 100_000},
    ],
)
def test_a_training_says_so_before_it_allocates(changes, tmp_path, monkeypatch):
    monkeypatch.setattr(first_state, "made", None)
    settings = default.get_config()
    settings.data.name = "cifar10_sample"
    settings.update_from_flattened_dict(changes)
    monkeypatch.setattr(memory, "available", lambda: 10**12)  # of a large machine
    with pytest.raises(ConfigError, match="lower model.width"):
        loop.train(settings, tmp_path / "run", Console(quiet=True))
    assert not (tmp_path / "run" / "config.json").exists()
