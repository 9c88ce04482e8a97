"""Where the time of our step goes, operation by operation.

Traces a few steps with `jax.profiler` and charges each moment to the operation that
started last (oneDNN's run on after their call has returned). Prints milliseconds a step
by layer and pass, then the longest operations. Passes: "fwd", "bwd", and "-" for what
belongs to no layer (augmentation, loss, optimiser).

    python -m benchmarks.operations [--mode infer] [--dtype float32] [--batch_norm]
"""

import argparse
import collections
import glob
import json
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "peers"))


def names(hlo: str) -> dict[str, str]:
    """Operation -> where in the program it comes from."""
    found = {}
    for line in hlo.splitlines():
        match = re.match(r"\s*(?:ROOT )?%?([\w.\-$]+) = ", line)
        origin = re.search(r'op_name="([^"]*)"', line)
        if match and origin:
            found[match[1]] = origin[1]
    return found


def part(origin: str) -> str:
    """`conv3_2 bwd` from an operation's origin."""
    layer = re.findall(r"(conv\d_\d|bn\d_\d|fc\d)", origin)
    backward = "transpose(jvp" in origin
    if not layer:
        if "VGG" in origin:
            return f"relu, pool {'bwd' if backward else 'fwd'}"
        return "rest -"
    return f"{layer[-1]} {'bwd' if backward else 'fwd'}"


def charged(directory: str) -> collections.Counter:
    """Nanoseconds by operation name."""
    import jax

    (path,) = glob.glob(f"{directory}/**/*.xplane.pb", recursive=True)
    events = []
    for plane in jax.profiler.ProfileData.from_file(path).planes:
        for line in plane.lines:
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                if operation:
                    events.append((event.start_ns, operation))
    events.sort()
    total = collections.Counter()
    for (start, operation), (end, _) in zip(events, events[1:], strict=False):
        total[operation] += end - start
    return total


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", default="train", choices=("train", "infer"))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batch_norm", action="store_true")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--variant", default="D")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--longest", type=int, default=30)
    options = parser.parse_args()
    import ours

    steps, compiled = ours.build(vars(options))
    import jax

    steps(3)
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            steps(options.steps)
        total = charged(directory)
    origins = names(compiled().as_text())
    origin_of = lambda op: origins.get(op.split("__onednn")[0], "")  # noqa: E731
    scale = 1e6 * options.steps
    parts = collections.Counter()
    for operation, time in total.items():
        parts[part(origin_of(operation))] += time / scale
    print(json.dumps(vars(options)))
    print(f"{sum(parts.values()):8.2f} ms a step")
    for name, time in parts.most_common():
        print(f"{time:8.2f} {name}")
    print("longest operations")
    for operation, time in total.most_common(options.longest):
        print(f"{time / scale:8.2f} {operation:45} {origin_of(operation)[-80:]}")


if __name__ == "__main__":
    main()
