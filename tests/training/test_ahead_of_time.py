"""Kernels of a training step, which are compiled before and while it is lowered."""

import functools
import threading
import time
from functools import partial

import jax
import pytest
from rich.console import Console

from configs import quickstart
from vgg_jax import machine
from vgg_jax.data import datasets
from vgg_jax.nn import algorithms, emitted, ffi
from vgg_jax.nn.pooling import pool2d
from vgg_jax.nn.vgg import VGG
from vgg_jax.training import ahead_of_time, loop

pytestmark = pytest.mark.skipif(
    not machine.kernel_kind() or jax.default_backend() != "cpu",
    reason="no kernels of our own here",
)
BATCH = 24


@pytest.fixture
def asked(monkeypatch):
    """Every kernel that this thread asks for, of which none is compiled."""
    kinds, here = [], threading.get_ident()

    def note(*kind):
        if threading.get_ident() == here:
            kinds.append(kind)

    monkeypatch.setattr(emitted, "_load", note)
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


KINDS = [("max_pool", None, size) for size in (4, 2)]


def kind(what, algorithm, option):
    return what, emitted.registers(), algorithm, option


def test_what_is_asked_for_meanwhile_is_there_afterwards(monkeypatch):
    threads = []

    def load(*_):
        time.sleep(0.1)
        threads.append(threading.current_thread().name)

    monkeypatch.setattr(emitted, "_load", load)
    with emitted.meanwhile():
        for _ in range(3):  # as of three layers
            names = [emitted._registered(*kind(*of)) for of in KINDS]
        assert not threads
    assert [name.split("_")[2:5] for name in names] == [
        ["max", "pool", "4"],
        ["max", "pool", "2"],
    ]
    assert len(threads) == 2 and all(name.startswith("kernels") for name in threads)


def test_a_kernel_is_told_once_whoever_asks(monkeypatch):
    """XLA refuses a name that it has: a thread that has begun it, and two that ask."""
    told = []

    def register(name, *_):
        time.sleep(0.1)
        told.append(name)

    monkeypatch.setattr(ffi, "register", register)
    monkeypatch.setattr(emitted, "_load", functools.cache(emitted._load.__wrapped__))
    pool = kind(*KINDS[0])
    emitted.begin([pool])
    others = [threading.Thread(target=emitted._registered, args=pool) for _ in range(2)]
    for thread in others:
        thread.start()
    with emitted.meanwhile():
        name = emitted._registered(*pool)
    for thread in others:
        thread.join()
    assert told == [name]


def test_an_error_meanwhile_is_raised_at_the_end(monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(emitted, "_load", fail)
    with pytest.raises(OSError, match="no space"), emitted.meanwhile():
        emitted._registered(*kind(*KINDS[0]))
    monkeypatch.setattr(emitted, "_load", lambda *_: None)
    emitted._registered(*kind(*KINDS[0]))


def test_what_fails_on_a_thread_is_tried_again_by_who_asks(monkeypatch):
    here, done, tried = threading.get_ident(), threading.Event(), []

    def load(*of):
        if threading.get_ident() == here:
            tried.append(of)
            return
        if of[3] == 2:
            done.set()
        raise OSError("no space left")

    monkeypatch.setattr(emitted, "_load", load)
    kinds = [kind(*of) for of in KINDS]
    emitted.begin(kinds)
    assert done.wait(10)  # the first one's error did not end the thread
    emitted._registered(*kinds[0])
    assert tried == kinds[:1]


def train_step(state, batch):
    return pool2d(batch.images.astype("float32") * state, kind="max")


def begun():
    return ahead_of_time.begun(
        jax.jit(train_step),
        jax.ShapeDtypeStruct((), "float32"),
        batch_size=2,
        image_shape=(4, 4, 3),
    )


def test_a_step_whose_kernels_fail_says_why(monkeypatch):
    """JAX has it lowered by then, and would ask XLA for kernels that are not there."""
    threads = []

    def fail(*_):
        threads.append(threading.current_thread().name)
        raise OSError("no space left")

    monkeypatch.setattr(emitted, "_load", fail)
    step = begun()
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            step()
    assert threads and all(name.startswith("kernels_") for name in threads)


def test_a_run_begins_kernels_before_its_data(tmp_path, monkeypatch):
    class BegunError(Exception):
        pass

    def refuse(model, batch_size):
        raise BegunError(model.variant, batch_size)

    def never(*_, **__):
        raise AssertionError("data are read first")

    monkeypatch.setattr(ahead_of_time, "begin_kernels", refuse)
    monkeypatch.setattr(datasets, "load", never)
    config = quickstart.get_config()
    with pytest.raises(BegunError) as error:
        loop.train(config, tmp_path, Console(quiet=True))
    assert error.value.args == (config.model.variant, config.batch_size)
