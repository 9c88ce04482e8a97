"""Measures where the time of our step goes, operation by operation.

    python -m benchmarks.operations [--mode infer] [--dtype float32] [--batch_norm]

Traces a few steps with `jax.profiler` and charges each moment to the operation that
started last, as oneDNN's operations run on after their call has returned. On a GPU an
operation is charged what its kernels take, and what no kernel runs in is "idle"; set
XLA_FLAGS=--xla_gpu_enable_command_buffer= there, as a command buffer hides what it
runs. Prints the ms per step of each layer and pass, then the longest operations. The
passes are "fwd" and "bwd", and "-" for what belongs to no layer: augmentation, loss,
optimiser.
"""

import argparse
import collections
import glob
import json
import re
import sys
import tempfile
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parent / "peers"))


def origins(hlo: str) -> dict[str, str]:
    """Returns operation -> where in the program it comes from."""
    op_names = {}
    for line in hlo.splitlines():
        operation = re.match(r"\s*(?:ROOT )?%?([\w.\-$]+) = ", line)
        op_name = re.search(r'op_name="([^"]*)"', line)
        if operation and op_name:
            op_names[operation[1]] = op_name[1]
    return op_names


def part(origin: str) -> str:
    """Returns layer and pass of an operation.

    >>> part("jit(train_step)/transpose(jvp(VGG))/conv3_2/cond/dot_general")
    'conv3_2 bwd'
    """
    layers = re.findall(r"(conv\d_\d|bn\d_\d|fc\d)", origin)
    direction = "bwd" if "transpose(jvp" in origin else "fwd"
    if layers:
        return f"{layers[-1]} {direction}"
    return f"relu, pool {direction}" if "VGG" in origin else "rest -"


def charged(directory: str) -> collections.Counter:
    """Returns operation -> nanoseconds in the trace."""
    (path,) = glob.glob(f"{directory}/**/*.xplane.pb", recursive=True)
    planes = list(jax.profiler.ProfileData.from_file(path).planes)
    on_gpu = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    events = []
    for plane in on_gpu or planes:
        for line in plane.lines:
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                if operation and (not on_gpu or line.name.startswith("Stream")):
                    events.append((event.start_ns, event.duration_ns, operation))
    events.sort()
    nanoseconds = collections.Counter()
    for (start, takes, operation), (end, *_) in zip(events, events[1:], strict=False):
        spent = min(takes, end - start) if on_gpu else end - start
        nanoseconds[operation] += spent
        nanoseconds["idle"] += end - start - spent
    return nanoseconds


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", default="train", choices=("train", "infer"))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batch_norm", action="store_true")
    parser.add_argument("--batch", type=int, default=128, help="images per batch")
    parser.add_argument("--size", type=int, default=32, help="pixels of the images")
    parser.add_argument("--variant", default="D")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=5, help="steps to trace")
    parser.add_argument(
        "--longest", type=int, default=30, help="number of operations to list"
    )
    options = parser.parse_args()
    import ours  # a peer; found only now, and importing it configures JAX

    steps, compiled = ours.build(vars(options))
    steps(3)
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            steps(options.steps)
        nanoseconds = charged(directory)
    origin_by_operation = origins(compiled().as_text())
    origin_of = lambda op: origin_by_operation.get(op.split("__onednn")[0], "")
    scale = 1e6 * options.steps  # of nanoseconds in all to ms per step
    parts = collections.Counter()
    for operation, time in nanoseconds.items():
        parts[part(origin_of(operation))] += time / scale
    print(json.dumps(vars(options)))
    print(f"{sum(parts.values()):8.2f} ms per step")
    for name, time in parts.most_common():
        print(f"{time:8.2f} {name}")
    print("longest operations")
    for operation, time in nanoseconds.most_common(options.longest):
        print(f"{time / scale:8.2f} {operation:45} {origin_of(operation)[-80:]}")


if __name__ == "__main__":
    main()
