"""The paper's testing protocol as equalities: section 3.2, by explicit loops."""

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
    made = VGG("conv3-8 | conv3-16 |", 7, **{"hidden": (12,), "conv": "lax"} | fields)
    return [
        random(made, "cifar10", seed=seed, size=SIZE).replace(source=f"network {seed}")
        for seed in range(count)
    ]


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
    factor = scale / min(height, width)
    sides = (max(scale, round(width * factor)), max(scale, round(height * factor)))
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


@pytest.mark.parametrize("head", ["paper", "compact"])
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
    (network,) = networks()
    numbers = np.random.default_rng(1)
    source = photographs([tuple(s) for s in numbers.integers(8, 40, (60, 2))])
    programs = evaluate([network], source).programs
    assert programs <= grouping.PROGRAMS
    ratios = {round(max(s) / min(s), 3) for s in (p.shape[:2] for p, _ in source)}
    assert programs < len(ratios)  # fewer than the pictures would need alone


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
    assert result.best(0)[0][0] == labelled[0][1]
    damaged = Photographs([*labelled, "truncated", "no picture", "empty", "empty"])
    result = evaluate([network], damaged, protocol="center")
    assert round(result.fusion.top1, 6) == round(1 - 3 / 16, 6)
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


def test_networks_for_other_classes_are_not_fused():
    first, second = networks(2)
    named = second.replace(class_names=tuple("abcdefg"))
    with pytest.raises(
        ConfigError, match="cannot be fused, for their names of classes"
    ):
        evaluate([first, named], photographs())
    (other,) = networks(head="compact")
    with pytest.raises(ConfigError, match="sizes of training differ: 16 and 32"):
        evaluate([first, other.replace(size=32)], photographs())


def test_a_label_beyond_the_classes_is_named():
    source = photographs()
    source[0] = (source[0][0], 7)
    with pytest.raises(ConfigError, match="has 7 classes, and picture 0 is of class"):
        evaluate(networks(), source)
