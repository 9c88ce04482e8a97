"""The paper's testing protocol as equalities: section 3.2, by explicit loops."""

import functools
import itertools

import jax
import numpy as np
import PIL.Image
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.evaluation import grouping, protocol
from vgg_jax.evaluation.protocol import evaluate
from vgg_jax.interop.network import random
from vgg_jax.nn.dense import activation_map
from vgg_jax.nn.preprocessing import normalize
from vgg_jax.nn.vgg import VGG

SIZE = 16
class_map = jax.jit(activation_map, static_argnums=0)
apply = jax.jit(VGG.apply, static_argnums=0)
SIZES = [(16, 16), (20, 31), (44, 18), (31, 20)]
SCALES = (17, 24)


def networks(count=1, **fields):
    fields = {"hidden": (12,), "conv": "lax"} | fields
    return [network_of(seed, **fields) for seed in range(count)]


@functools.cache
def network_of(seed, *, size=SIZE, variant="conv3-8 | conv3-16 |", **fields):
    made = random(VGG(variant, 7, **fields), "cifar10", seed=seed, size=size)
    return made.replace(source=f"network {seed}")


class Photographs(list):
    """Pictures in memory; those that are texts are damaged."""

    def __getitem__(self, number):
        if isinstance(found := super().__getitem__(number), str):
            raise ValueError(found)
        return found


def photographs(sizes=tuple(SIZES)):
    numbers = np.random.default_rng(0)
    return Photographs(
        (numbers.integers(0, 256, (*size, 3), dtype=np.uint8), i % 7)
        for i, size in enumerate(sizes)
    )


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def scaled(pixels, scale):
    """With Pillow: the smaller side to `scale` pixels."""
    height, width = pixels.shape[:2]
    sides = tuple(int(scale * side / min(height, width)) for side in (width, height))
    if sides == (width, height):
        return pixels
    picture = PIL.Image.fromarray(pixels)
    return np.asarray(picture.resize(sides, PIL.Image.Resampling.BILINEAR))


def posteriors_of(network, crops):
    images = normalize(np.stack(crops), network.preprocessing)
    return softmax(np.asarray(apply(network.model, network.variables, images)))


def dense_posterior(network, pixels):
    images = normalize(pixels[None], network.preprocessing)
    found = class_map(network.model, network.variables, images)
    return softmax(np.asarray(found).mean((1, 2)))[0]


def crops_of(pixels):
    """A regular 5x5 grid from corner to corner, by the four corners' coordinates."""
    rows = np.linspace(0, pixels.shape[0] - SIZE, 5).round().astype(int)
    columns = np.linspace(0, pixels.shape[1] - SIZE, 5).round().astype(int)
    return [pixels[i : i + SIZE, j : j + SIZE] for i in rows for j in columns]


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_at_the_size_of_training_all_protocols_are_the_network():
    (network,) = networks()
    source = photographs([(SIZE, SIZE)] * 5)
    wanted = posteriors_of(network, [pixels for pixels, _ in source])
    for name in ("center", "dense", "crops", "dense+crops"):
        result = evaluate([network], source, protocol=name)
        close(result.fusion.posteriors, wanted)
        assert result.programs == len(protocol.PROTOCOLS[name])


def test_fifty_crops_are_the_mean_of_fifty_crops():
    (network,) = networks()
    source = photographs()
    result = evaluate([network], source, protocol="crops", scales=(19,), flip=True)
    for row, (pixels, _) in zip(result.fusion.posteriors, source, strict=True):
        crops = crops_of(scaled(pixels, 19))
        fifty = [*crops, *(crop[:, ::-1] for crop in crops)]
        close(row, posteriors_of(network, fifty).mean(0))
    assert result.programs == 1


@pytest.mark.parametrize(
    "head", ["paper", pytest.param("compact", marks=pytest.mark.slow)]
)
def test_dense_is_the_mean_of_the_class_map_of_each_picture_alone(head):
    hidden = {} if head == "compact" else {"hidden": (12,)}
    (network,) = networks(head=head, **hidden)
    source = photographs()
    result = evaluate([network], source, scales=SCALES, flip=True)
    for row, (pixels, _) in zip(result.fusion.posteriors, source, strict=True):
        views = [scaled(pixels, scale) for scale in SCALES]
        views += [view[:, ::-1] for view in views]
        close(row, np.mean([dense_posterior(network, view) for view in views], 0))


def test_both_are_the_mean_of_the_two():
    (network,) = networks()
    source = photographs()
    how = {"scales": SCALES, "flip": True}
    rows = {
        name: evaluate([network], source, protocol=name, **how).fusion.posteriors
        for name in ("dense", "crops", "dense+crops")
    }
    close(rows["dense+crops"], (rows["dense"] + rows["crops"]) / 2)


def test_scales_are_averaged():
    (network,) = networks()
    source = photographs()
    how = {"protocol": "crops", "flip": True}
    rows = [evaluate([network], source, scales=(s,), **how) for s in SCALES]
    one = [row.fusion.posteriors for row in rows]
    together = evaluate([network], source, scales=SCALES, **how).fusion.posteriors
    close(together, np.mean(one, 0))


def test_fusion_is_the_mean_of_the_posteriors():
    several, source = networks(2), photographs()
    how = {"protocol": "dense+crops", "scales": SCALES, "flip": True}
    result = evaluate(several, source, **how)
    alone = [evaluate([network], source, **how) for network in several]
    for score, own in zip(result.scores, alone, strict=True):
        close(score.posteriors, own.fusion.posteriors)
    wanted = np.mean([own.fusion.posteriors for own in alone], 0)
    close(result.fusion.posteriors, wanted)
    assert result.programs == sum(own.programs for own in alone)


@pytest.mark.parametrize("pixels", [1, 10**6])
def test_batches_and_groups_make_no_difference(pixels):
    (network,) = networks()
    source = photographs()
    how = {"protocol": "dense+crops", "scales": SCALES, "flip": True}
    wanted = evaluate([network], source, **how)
    order = [3, 0, 1, 2]
    mixed = Photographs(source[number] for number in order)
    got = evaluate([network], mixed, **how, pixels=pixels)
    close(got.fusion.posteriors, wanted.fusion.posteriors[order])
    assert got.fusion.top1 == wanted.fusion.top1


def test_few_programs_are_compiled_for_many_sizes():
    numbers = np.random.default_rng(1)
    seen = grouping.Grouping(pixels=16 * 16 * 8)
    items = [
        grouping.Item(number, np.zeros((*size, 3), np.uint8))
        for number, side in enumerate(numbers.integers(16, 129, 400))
        for size in [(16, side) if number % 2 else (side, 16)]
    ]
    groups = [*seen.add(items), *seen.rest()]
    assert grouping.SHAPES < len(seen.shapes) <= grouping.PROGRAMS
    shown = list(itertools.chain.from_iterable(group.numbers for group in groups))
    assert sorted(shown) == list(range(400))  # each once
    assert max(np.prod(group.pixels.shape[:3]) for group in groups) <= 16 * 16 * 8


@pytest.fixture
def compiled():
    """Names of the functions that JAX compiles from here on, by its own account."""
    names = []

    def listen(event, seconds, fun_name="", **_):
        if event.endswith("backend_compile_duration"):
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("flip", [False, True])
def test_so_many_programs_are_compiled_as_is_said(flip, compiled):
    """Of a network that no other test has compiled; mirror images need no other."""
    (network,) = networks(size=12 + flip, variant="conv3-4 |")
    source = photographs(SIZES[:3])
    programs = evaluate([network], source, scales=(13, 15), flip=flip).programs
    assert 3 <= programs == compiled.count("jit(_of_group)")


def test_errors_are_counted_and_damaged_pictures_are_errors():
    (network,) = networks()
    source = photographs([(SIZE, SIZE)] * 12)
    rows = posteriors_of(network, [pixels for pixels, _ in source])
    order = np.argsort(-rows, 1)
    labelled = Photographs(
        (pixels, int(order[i, (0, 1, 4, 5)[i % 4]]))
        for i, (pixels, _) in enumerate(source)
    )
    result = evaluate([network], labelled, protocol="center").fusion
    # A quarter each is first, second, fifth, sixth.
    assert (round(result.top1, 6), round(result.top5, 6)) == (0.75, 0.25)
    assert result.posteriors[0].argmax() == labelled[0][1]
    damaged = Photographs([*labelled, "truncated", "no picture", "empty", "empty"])
    result = evaluate([network], damaged, protocol="center")
    assert round(result.fusion.top1, 6) == round(1 - 3 / 16, 6)
    assert round(result.fusion.top5, 6) == round(1 - 9 / 16, 6)
    assert result.damaged == {
        12: "truncated",
        13: "no picture",
        14: "empty",
        15: "empty",
    }
    close(result.fusion.posteriors[12:], 1 / 7)
    assert result.labels.tolist()[11:] == [labelled[11][1], -1, -1, -1, -1]


def test_long_pictures_are_cut_and_named():
    (network,) = networks()
    source = photographs([(16, 16), (16, 200)])
    result = evaluate([network], source)
    assert result.cut == [1]
    centre = source[1][0][:, 36:164]  # 8 x 16 pixels in the middle
    close(result.fusion.posteriors[1], dense_posterior(network, centre))


@pytest.mark.parametrize(
    "how, said",
    [
        ({"protocol": "denser"}, "choose one of: center, dense, crops, dense.crops"),
        ({"protocol": "crops", "scales": (20, 12)}, "12 pixels are fewer than the 16"),
        ({"scales": (8,)}, "8 pixels are fewer than the 16"),
    ],
)
def test_wrong_settings_name_the_remedy(how, said):
    with pytest.raises(ConfigError, match=said):
        evaluate(networks(), photographs(), **how)


def test_each_network_says_what_it_needs():
    """The first sees single pixels of its map; the second 7x7 of them, at 16 px too."""
    (compact,), (paper,) = networks(head="compact", hidden=()), networks()
    with pytest.raises(ConfigError, match="8 pixels are fewer than the 16"):
        evaluate([compact, paper], photographs(), scales=(8,))
    (adaptive,) = networks(head="adaptive")
    for name in ("dense", "dense+crops"):
        with pytest.raises(ConfigError, match=r"scales=\(16,\).*28 that network 0"):
            evaluate([adaptive], photographs(), protocol=name)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"class_names": tuple("abcdefx")}, "names of class 6 differ: g and x"),
        ({"size": 32}, "sizes of training differ: 16 and 32"),
    ],
)
def test_networks_for_other_pictures_are_not_fused(fields, said):
    unnamed, first, second = networks(3)
    first = first.replace(class_names=tuple("abcdefg"))
    assert len(evaluate([unnamed, first], photographs()[:1]).scores) == 2
    with pytest.raises(ConfigError, match=f"cannot be fused, for their {said}"):
        evaluate([unnamed, first, second.replace(**fields)], photographs())


def test_what_no_network_can_do_is_said():
    (network,) = networks()
    with pytest.raises(ConfigError, match="no networks to evaluate"):
        evaluate([], photographs())
    params = {k: v for k, v in network.variables["params"].items() if k != "fc8"}
    with pytest.raises(ConfigError, match="has no fc8"):
        evaluate([network.replace(variables={"params": params})], photographs())
    with pytest.raises(ConfigError, match="its weights are for 256"):
        evaluate([network.replace(size=20)], photographs(), protocol="center")
    grey = Photographs((pixels[..., :1], label) for pixels, label in photographs())
    with pytest.raises(ConfigError, match="picture 0 has 1 channels.*is for 3"):
        evaluate([network], grey)


@pytest.mark.parametrize("label", [7, -1])
def test_a_label_beyond_the_classes_is_named(label):
    source = photographs()
    source[0] = (source[0][0], label)
    with pytest.raises(ConfigError, match="has 7 classes, and picture 0 is of class"):
        evaluate(networks(), source)
