"""Which records of a data set are for training, for validation, for the test."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vgg_jax.errors import ConfigError

# scikit-learn's train_test_split(test_size=0.2, random_state=42), which the blog uses.
SKLEARN_80_20 = "sklearn_80_20"
_SEED, _SHARE = 42, 0.2

Spans = dict[str, np.ndarray]  # name of a whole split -> record numbers, int64 [N]


def spans_of(name: str, counts: Mapping[str, Any], spec: str, field: str) -> Spans:
    """Returns the record numbers of a TFDS split, by the name of the whole split.

    Args:
        name: of the data set, for messages.
        counts: its whole splits, each with its `num_examples`, as TFDS has them.
        spec: "train", "train[:90%]", "train+test[:100]".
        field: what is set to it, for the message.

    Raises:
        ConfigError: there is no such split, or it is empty.
    """
    try:
        parts = tfds.core.ReadInstruction.from_spec(spec).to_absolute(counts)
    except Exception as error:
        known, said = ", ".join(counts), " ".join(str(error).split())
        raise ConfigError(
            f"{field}={spec!r} is not a split of {name} ({said}); it has: "
            f"{known}; slices look like 'train[:90%]'"
        ) from error
    slices: dict[str, list[np.ndarray]] = {}
    for part in parts:
        whole = np.arange(counts[part.splitname].num_examples)
        slices.setdefault(part.splitname, []).append(whole[part.from_ : part.to])
    spans = {split: np.concatenate(arrays) for split, arrays in slices.items()}
    if not sum(map(len, spans.values())):
        raise ConfigError(f"{field}={spec!r} of {name} is empty")
    return spans


def sklearn_80_20(
    spans: Spans, ids_of: Callable[[str], np.ndarray]
) -> tuple[Spans, Spans]:
    """Splits `spans` in canonical order as scikit-learn does, into 80% and 20%.

    Args:
        spans: records to split.
        ids_of: canonical names of all records of a whole split, bytes `[N]`; empty
            where the data set has none, whose order is then that of its files.

    Returns:
        The larger part, and the part to hold out.
    """
    places = [(split, i) for split, span in spans.items() for i in span]
    ids = [ids_of(split)[i] if len(ids_of(split)) else b"" for split, i in places]
    canonical = np.argsort(np.array(ids), kind="stable")
    order = np.random.RandomState(_SEED).permutation(len(places))
    held_out = int(np.ceil(_SHARE * len(places)))

    def pick(chosen: np.ndarray) -> Spans:
        numbers: dict[str, list[int]] = {}
        for k in canonical[chosen]:
            split, i = places[k]
            numbers.setdefault(split, []).append(i)
        return {split: np.array(span) for split, span in numbers.items()}

    return pick(order[held_out:]), pick(order[:held_out])


def digest(
    counts: Mapping[str, Any], spans: Spans, ids_of: Callable[[str], np.ndarray]
) -> str:
    """Returns a SHA-256 of which examples a split has, in their order.

    Over their ids; where the set has none, over the lengths and the bytes of its files
    and the numbers of the records.

    Args:
        counts: as for `spans_of`.
        spans: the records.
        ids_of: as for `sklearn_80_20`.
    """
    total = hashlib.sha256()
    for split, numbers in spans.items():
        if len(ids := ids_of(split)):
            total.update(b"".join(name + b"\0" for name in ids[numbers].tolist()))
        else:
            info = counts[split]
            files = f"{split} {info.shard_lengths} {info.num_bytes} "
            total.update(files.encode() + numbers.astype("<i8").tobytes())
    return total.hexdigest()


def check_disjoint(spans: dict[str, Spans]) -> None:
    """Checks that no two of train, validation and test share images.

    Raises:
        ConfigError: two of them do.
    """
    roles = list(spans)
    for a in roles:
        for b in roles[roles.index(a) + 1 :]:
            for split in spans[a].keys() & spans[b].keys():
                common = np.intersect1d(spans[a][split], spans[b][split])
                if len(common):
                    raise ConfigError(
                        f"data.{a} and data.{b} share {len(common):,} images of "
                        f"{split!r}: a score on seen images says nothing"
                    )
