"""Random initial weights, those of all layers by one loop, which compiles sooner.

XLA compiles the random numbers of each shape by themselves, which takes longer than to
draw them. A number depends on its key and its place alone, as JAX is configured
(`jax_threefry_partitionable`): arrays of any shape come, to the same bits, from pieces
of one.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.extend import random as prng
from jax.typing import DTypeLike

# All take a key and `shape`. (Not the normal one: XLA makes one factor of a known
# deviation and the distribution's own, which rounds otherwise than in a loop.)
DISTRIBUTIONS: dict[str, Callable[..., jax.Array]] = {
    "truncated_normal": partial(jax.random.truncated_normal, lower=-2, upper=2),
    "uniform": partial(jax.random.uniform, minval=-1),
}
_PIECE = 2**15  # numbers drawn at once
_MOST = 2**32  # numbers of an array, counted by 32 bits


@dataclasses.dataclass(frozen=True)
class Draw:
    """An initialiser: random numbers times a factor.

    Attributes:
        distribution: one of `DISTRIBUTIONS`.
        factor: float32, by the shape of the weights.

    >>> half = Draw("uniform", lambda shape: np.float32(0.5))
    >>> w = half(jax.random.key(0), (3, 3, 8, 16))
    >>> w.shape, bool(abs(w).max() < 0.5)
    ((3, 3, 8, 16), True)
    """

    distribution: str
    factor: Callable[[tuple[int, ...]], np.float32]

    def __call__(
        self, key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> jax.Array:
        """Returns weights of some shape."""
        answer = _answer.get()
        if answer and dtype == jnp.float32 and math.prod(shape) < _MOST:
            return answer(_Asked(self, key, shape))
        numbers = DISTRIBUTIONS[self.distribution](key, shape=shape, dtype=dtype)
        return numbers * self.factor(shape).astype(dtype)


class _Asked(NamedTuple):
    """Weights that a network asked for."""

    draw: Draw
    key: jax.Array
    shape: tuple[int, ...]


_answer: ContextVar[Callable[[_Asked], jax.Array] | None] = ContextVar(
    "answer", default=None
)


@contextlib.contextmanager
def _answered_by(answer: Callable[[_Asked], jax.Array]) -> Iterator[None]:
    token = _answer.set(answer)
    try:
        yield
    finally:
        _answer.reset(token)


def init(model: nn.Module, key: jax.Array, *arguments: Any, **keywords: Any) -> Any:
    """Returns what `model.init` does, to the same bits; jitted, it compiles sooner.

    It does on a CPU; elsewhere, where it was not measured, it is `model.init`.

    Args:
        model: it is traced twice. Weights that are no `Draw`'s are made as ever.
        key: of the weights.
        *arguments: of the model.
        **keywords: of the model.

    >>> dense = nn.Dense(2, kernel_init=Draw("uniform", lambda shape: np.float32(1)))
    >>> variables = init(dense, jax.random.key(0), jnp.zeros((1, 3)))
    >>> variables["params"]["kernel"].shape
    (3, 2)
    """
    made = partial(model.init, key, *arguments, **keywords)
    is_by_place = jax.config.jax_threefry_partitionable  # pyright: ignore
    is_known = is_by_place and str(jax.random.key_impl(key)) == "threefry2x32"
    if not is_known or jax.default_backend() != "cpu":
        return made()
    asked: list[_Asked] = []

    def note(one: _Asked) -> jax.Array:
        asked.append(one)
        return jnp.zeros(one.shape)

    with _answered_by(note):
        made()
    weights = iter(_drawn(asked))
    with _answered_by(lambda _: next(weights)):
        return made()


def _drawn(asked: Sequence[_Asked]) -> list[jax.Array]:
    """Returns the weights asked for, in order."""
    found: list[Any] = [None] * len(asked)
    for distribution in DISTRIBUTIONS:
        of_it = [i for i, a in enumerate(asked) if a.draw.distribution == distribution]
        if of_it:
            weights = _by_a_loop(distribution, [asked[i] for i in of_it])
            for i, one in zip(of_it, weights, strict=True):
                found[i] = one
    return found


def _by_a_loop(distribution: str, asked: Sequence[_Asked]) -> Iterator[jax.Array]:
    """Yields weights of one distribution, drawn piece by piece."""
    sizes = [math.prod(one.shape) for one in asked]
    counts = [-(-size // _PIECE) for size in sizes]
    owners = np.repeat(np.arange(len(asked)), counts)
    places = np.concatenate([np.arange(n, dtype=np.uint32) * _PIECE for n in counts])
    keys = jnp.stack([jax.random.key_data(one.key) for one in asked])
    factors = np.array([one.draw.factor(one.shape) for one in asked], np.float32)

    def piece(of: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        key, place, factor = of
        there = jax.random.wrap_key_data(jnp.append(key, place), impl=_FROM_A_PLACE)
        return DISTRIBUTIONS[distribution](there, shape=(_PIECE,)) * factor

    pieces = lax.map(piece, (keys[owners], places, factors[owners])).reshape(-1)
    starts = (np.cumsum(counts) - counts) * _PIECE
    for one, start, size in zip(asked, starts.tolist(), sizes, strict=True):
        yield lax.slice_in_dim(pieces, start, start + size).reshape(one.shape)


def _bits_from_a_place(key: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
    """Returns the random bits of JAX's own key from a place on, uint32."""
    assert width == 32 and len(shape) == 1, (width, shape)
    first, second, place = (jnp.full(shape, number) for number in key)
    low, high = place + lax.iota(jnp.uint32, *shape), jnp.zeros(shape, jnp.uint32)
    one, other = prng.threefry2x32_p.bind(first, second, high, low)
    return one ^ other


def _none(*_: Any) -> jax.Array:
    raise NotImplementedError("a key with a place draws numbers, and makes no other")


_FROM_A_PLACE = prng.define_prng_impl(
    key_shape=(3,),  # of JAX's key, its two numbers, and the place of the first bits
    seed=_none,
    split=_none,
    fold_in=_none,
    random_bits=_bits_from_a_place,
    name="threefry2x32_from_a_place",
    tag="place",
)
