"""Refuses derivatives that there are none of, in one line that names the remedy.

JAX refuses forward mode too where a gradient is hand-written (`jax.custom_vjp`), but
says neither where nor what helps. So the tangents go through an operation of their own:
reverse mode transposes it to nothing, forward mode has to run it.
"""

from functools import partial
from typing import NoReturn

import jax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from vgg_jax.errors import ConfigError


@jax.custom_jvp
def reverse_mode_only(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the arrays; a program that pushes their tangents forward is refused.

    Gradients, gradients of gradients and Hessian-vector products as `jax.jvp` of a
    gradient are not affected.

    Raises:
        ConfigError: when a tangent is computed (`jax.jvp`, `jax.jacfwd`), or the
            program that would do so is lowered.
    """
    return arrays


@partial(reverse_mode_only.defjvp, symbolic_zeros=True)
def _reverse_mode_only_jvp(primals, tangents):
    is_zero = [isinstance(tangent, SymbolicZero) for tangent in tangents]
    moving = [t for t, zero in zip(tangents, is_zero, strict=True) if not zero]
    refused = iter(_refused.bind(*moving))
    return primals, tuple(
        tangent if zero else next(refused)
        for tangent, zero in zip(tangents, is_zero, strict=True)
    )


def _refuse(*_, **__) -> NoReturn:
    raise ConfigError(
        "conv='auto' cannot be differentiated in forward mode (jax.jvp, jax.jacfwd) on "
        "CPU, where its gradients are hand-written: build the network with conv='lax'"
    )


_refused = Primitive("forward_mode_refused")
_refused.multiple_results = True
_refused.def_impl(_refuse)
_refused.def_abstract_eval(lambda *tangents: tangents)
ad.deflinear2(_refused, lambda cotangents, *_: cotangents)
batching.primitive_batchers[_refused] = lambda args, dims: (_refused.bind(*args), dims)
mlir.register_lowering(_refused, _refuse)


@jax.custom_jvp
def not_trained(
    w: jax.Array, prepared: list[jax.Array]
) -> tuple[jax.Array, list[jax.Array]]:
    """Returns both; a program that differentiates by `w` is refused.

    What was prepared from `w` stands in its place, so that its gradient would be zero,
    and would belong to older weights once they change.

    Raises:
        ConfigError: when `w` has a tangent.
    """
    return w, prepared


@partial(not_trained.defjvp, symbolic_zeros=True)
def _not_trained_jvp(primals, tangents):
    if not isinstance(tangents[0], SymbolicZero):
        raise ConfigError(
            "these weights were prepared for inference (Network.prepared) and cannot "
            "be trained: differentiate the network that they were prepared from"
        )
    return primals, tangents
