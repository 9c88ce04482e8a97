"""Every card of the zoo is of the file beside it, and the manual says what they say."""

import hashlib
from pathlib import Path

import jax
import pytest

from vgg_jax.errors import RunError
from vgg_jax.interop import zoo
from vgg_jax.interop.load import load

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", zoo.cards())
def test_a_card_is_of_its_file(name):
    card, network = zoo.cards()[name], load(name)
    content = zoo.path(name).read_bytes()
    assert (card.bytes, card.sha256) == (
        len(content),
        hashlib.sha256(content).hexdigest(),
    )
    params = jax.tree.leaves(network.variables["params"])
    assert card.parameters == sum(leaf.size for leaf in params)
    assert network.source == f"zoo/{name}" and not network.random_layers
    assert len(network.class_names) == network.model.num_classes
    assert (ROOT / card.log).is_file() and str(card.views) in card.accuracy
    (row,) = [
        line
        for line in (ROOT / "docs/zoo.md").read_text().splitlines()
        if line.startswith(f"| `{name}` |")
    ]
    for accuracy in card.accuracy.values():
        assert f"{accuracy:.2%}" in row


def test_the_zoo_is_small():
    """70 MB in all, at most."""
    assert sum(file.stat().st_size for file in zoo.directory().iterdir()) < 70e6


def test_what_is_not_here(tmp_path, monkeypatch):
    """A package holds every card, but only the small weights."""
    for file in zoo.directory().glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    monkeypatch.setattr(zoo, "directory", lambda: tmp_path)
    with pytest.raises(RunError, match="does not come with the package: clone"):
        load(zoo.DEFAULT)
    (tmp_path / f"{zoo.DEFAULT}.safetensors").write_bytes(b"torn")
    with pytest.raises(RunError, match="is damaged: its SHA-256"):
        load(zoo.DEFAULT)
