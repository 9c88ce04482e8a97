"""Kernels of a training step, which are compiled before and while it is lowered."""

import threading
from functools import partial

import jax
import pytest

from vgg_jax import machine
from vgg_jax.nn import algorithms, emitted
from vgg_jax.nn.pooling import pool2d
from vgg_jax.nn.vgg import VGG
from vgg_jax.training import ahead_of_time

pytestmark = pytest.mark.skipif(
    not machine.kernel_kind() or jax.default_backend() != "cpu",
    reason="no kernels of our own here",
)
BATCH = 24


@pytest.fixture
def asked(monkeypatch):
    """Every kernel that is asked for from now on, of which none is compiled."""
    kinds = []
    monkeypatch.setattr(emitted, "_load", lambda *kind: kinds.append(kind))
    return kinds


def lowered(model):
    """Lowers the gradient by the weights, for images of 32 pixels."""
    images = jax.ShapeDtypeStruct((BATCH, 32, 32, 3), "float32")
    variables = jax.eval_shape(
        partial(model.init, train=False), jax.random.key(0), images
    )
    loss = lambda v, x: model.apply(v, x, train=True)[0, 0].astype("float32")
    return jax.jit(jax.grad(loss)).lower(variables, images)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("width", [1, 0.125])
def test_the_large_kernels_of_a_step_are_begun_and_no_other(
    dtype, width, asked, monkeypatch
):
    """They are those of a lowered step, but for maps of two pixels."""
    if not machine.prefers_kernels(dtype):
        pytest.skip("convolved by oneDNN here")
    model = VGG("D", head="compact", dtype=dtype, width=width, dropout=0.0)
    begun = set()
    monkeypatch.setattr(emitted, "begin", begun.update)
    ahead_of_time.begin_kernels(model, BATCH)
    lowered(model)
    assert begun == {kind for kind in asked if kind[2] is algorithms.F4}
    assert len(begun) >= 5  # both ways of a kernel, images and maps, the gradient


@pytest.mark.parametrize("model", [{"conv": "lax"}, {"variant": "conv1-8 |"}], ids=str)
def test_nothing_is_begun_where_nothing_is_asked_for(model, monkeypatch):
    begun = set()
    monkeypatch.setattr(emitted, "begin", begun.update)
    ahead_of_time.begin_kernels(VGG(**{"variant": "A"} | model), BATCH)
    assert not begun


def test_what_is_asked_for_meanwhile_is_there_afterwards(monkeypatch):
    here = threading.get_ident()
    threads = set()
    note = lambda *_: threads.add(threading.get_ident())
    monkeypatch.setattr(emitted, "_load", note)
    with emitted.meanwhile():
        name = emitted._registered("max_pool", emitted.registers(), None, 4)
    assert name.startswith("vgg_jax_max_pool_4_")
    assert threads and here not in threads


def test_an_error_meanwhile_is_raised_at_the_end(monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(emitted, "_load", fail)
    with pytest.raises(OSError, match="no space"), emitted.meanwhile():
        emitted._registered("max_pool", emitted.registers(), None, 4)
    monkeypatch.setattr(emitted, "_load", lambda *_: None)
    emitted._registered("max_pool", emitted.registers(), None, 4)


def test_what_fails_on_a_thread_of_its_own_is_met_by_who_asks(monkeypatch):
    done = threading.Event()

    def fail(*kind):
        done.set() if kind[3] == 2 else None
        raise OSError("no space left")

    monkeypatch.setattr(emitted, "_load", fail)
    kinds = [("max_pool", emitted.registers(), None, size) for size in (4, 2)]
    emitted.begin(kinds)
    assert done.wait(10)  # the first one's error did not end the thread
    with pytest.raises(OSError, match="no space"):
        emitted._registered(*kinds[0])


def test_a_step_whose_kernels_fail_says_why(monkeypatch):
    """JAX has it lowered by then, and would ask XLA for kernels that are not there."""

    def fail(*_):
        raise OSError("no space left")

    def train_step(state, batch):
        return pool2d(batch.images.astype("float32") * state, kind="max")

    monkeypatch.setattr(emitted, "_load", fail)
    step = ahead_of_time.begun(
        jax.jit(train_step),
        jax.ShapeDtypeStruct((), "float32"),
        batch_size=2,
        image_shape=(4, 4, 3),
    )
    with pytest.raises(OSError, match="no space"):
        step()
