"""What a compiled program sends from device to device."""

import math
import re
from collections import Counter
from collections.abc import Mapping

# XLA's collectives, and the bytes that a device sends for each of its result's, of n
# devices in a ring.
RING = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: n - 1,
    "collective-permute": lambda n: 1,
    "all-to-all": lambda n: (n - 1) / n,
}
_BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "f32": 4,
    "s32": 4,
    "u32": 4,
}
_RESULT = re.compile(
    rf" = (?P<types>.+?) (?P<name>{'|'.join(RING)})(?P<start>-start)?\("
)
_CHANNEL = re.compile(r"channel_id=(\d+)")
_SHARD_MAP = "1"  # the channel of all collectives that `jax.shard_map` wrote itself
_TYPE = re.compile(r"(?P<dtype>[a-z]+\d*)\[(?P<shape>[\d,]*)\]")


def of_program(program: str) -> dict[str, tuple[int, int]]:
    """Returns number and bytes of the results of XLA's collectives, by name.

    Args:
        program: of one device, as XLA writes it.

    >>> of_program("%a = (f32[4,2]{1,0}, bf16[3]{0}) all-reduce-start(%x, %y), ...")
    {'all-reduce': (1, 38)}
    """
    numbers, sizes, seen = Counter(), Counter(), set()
    for line in program.splitlines():
        found = _RESULT.search(line)
        if not found:
            continue
        name, channel = found["name"], _CHANNEL.search(line)
        if channel and channel[1] != _SHARD_MAP:
            if (name, channel[1]) in seen:  # one that several fusions carry
                continue
            seen.add((name, channel[1]))
        parts = [
            _BYTES.get(dtype, 4) * math.prod(int(n) for n in shape.split(",") if n)
            for dtype, shape in _TYPE.findall(found["types"])
            if (dtype, shape) != ("u32", "")  # of the machinery
        ]
        if found["start"] and name != "all-reduce":  # operands, then results
            parts = parts[len(parts) // 2 :]
        numbers[name] += 1
        sizes[name] += sum(parts)
    return {name: (numbers[name], sizes[name]) for name in sorted(numbers)}


def sent(collectives: Mapping[str, tuple[int, int]], devices: int) -> float:
    """Returns the bytes that a device sends for them, in rings of all devices.

    >>> sent({"all-reduce": (1, 1_000)}, 4)
    1500.0
    """
    return sum(RING[name](devices) * size for name, (_, size) in collectives.items())
