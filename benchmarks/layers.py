"""Every convolution of VGG-16 D at 32 px: `conv.conv2d` beside XLA's own.

Times value, input gradient and weight gradient separately, the two implementations in
turn (A B A B), and prints GFLOP/s of the direct convolution (medians) and the ratio.
"own" runs with the flags of `backend.configure`, and so does "xla". (At 2 ... 12
images XLA's weight gradient in bfloat16 is garbage on AMX with jaxlib 0.12.)

    python -m benchmarks.layers [--batch 128] [--rounds 7]
"""

import argparse
import statistics
import time

from vgg_jax import backend

LAYERS = (  # map size, channels in, channels out
    (32, 3, 64), (32, 64, 64), (16, 64, 128), (16, 128, 128), (8, 128, 256),
    (8, 256, 256), (4, 256, 512), (4, 512, 512), (2, 512, 512),
)  # fmt: skip
PASSES = ("value", "dx", "dw")


def programs(implementation):
    """Jitted value, input gradient and weight gradient."""
    import jax
    import jax.numpy as jnp

    from vgg_jax.nn.conv import conv2d

    def conv(x, w):
        bias = jnp.zeros(w.shape[-1:], w.dtype)
        return conv2d(x, w, bias, implementation=implementation)

    def dx(x, w, g):
        return jax.vjp(lambda x: conv(x, w), x)[1](g)

    def dw(x, w, g):
        return jax.vjp(lambda w: conv(x, w), w)[1](g)

    value = lambda x, w, g: conv(x, w)  # noqa: E731
    return dict(zip(PASSES, map(jax.jit, (value, dx, dw)), strict=True))


def seconds(call):
    import jax

    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def measure(layer, dtype, batch, rounds):
    """GFLOP/s by pass and implementation."""
    import jax

    size, channels, features = layer
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(batch, size, size, channels), (3, 3, channels, features),
              (batch, size, size, features)]  # fmt: skip
    arrays = [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]
    flops = 2 * batch * size**2 * 9 * channels * features
    made = {"own": programs("auto"), "xla": programs("lax")}
    rates = {}
    for name in PASSES:
        times = {key: [] for key in made}
        for i in range(rounds + 1):
            for key, parts in made.items():
                taken = seconds(lambda f=parts[name]: f(*arrays))
                if i:  # the first round compiles
                    times[key].append(taken)
        rates[name] = {
            key: flops / statistics.median(t) / 1e9 for key, t in times.items()
        }
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    backend.configure()
    print({k: v for k, v in backend.environment().items() if k != "command"})
    print(f"batch {options.batch}; own / xla GFLOP/s and their ratio")
    for dtype in ("float32", "bfloat16"):
        for layer in LAYERS:
            rates = measure(layer, dtype, options.batch, options.rounds)
            cells = (
                f"{name} {r['own']:6,.0f} /{r['xla']:6,.0f} {r['own'] / r['xla']:7.2f}x"
                for name, r in rates.items()
            )
            print(f"{dtype:8} {layer[0]:2} {layer[1]:3}->{layer[2]:3}  ", *cells)


if __name__ == "__main__":
    main()
