"""JSON objects that carry a CRC-32 of themselves, under the key `crc32`."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

_KEY = "crc32"


def dumps(content: Mapping[str, Any], indent: int | None = None) -> str:
    """Returns an object as text, its sum in it.

    >>> dumps({"epoch": 1})
    '{"epoch": 1, "crc32": 2492569672}'
    """
    return json.dumps({**content, _KEY: _sum(content)}, indent=indent)


def loads(text: str | bytes, since: str = "") -> dict[str, Any]:
    """Returns the object, without its sum.

    Text that never had one, as version 0.1 wrote it, is taken as it is.

    Args:
        text: as `dumps` returns it, or any JSON.
        since: a key that an object has only if it has a sum too.

    Raises:
        ValueError: it is not the text of an object, or its sum is wrong.

    >>> loads('{"epoch": 1}')
    {'epoch': 1}
    >>> loads(dumps({"epoch": 1}).replace("1,", "2,"))
    Traceback (most recent call last):
    ValueError: its CRC-32 is wrong
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    crc = content.pop(_KEY, None)
    if crc is None and since in content:
        raise ValueError("its CRC-32 is missing")
    if crc is not None and crc != _sum(content):
        raise ValueError("its CRC-32 is wrong")
    return content


def _sum(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content).encode())
