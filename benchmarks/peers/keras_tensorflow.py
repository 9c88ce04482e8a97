"""Keras 3 on TensorFlow, as in the blog: `tf.function`, compiled by XLA or not."""

import os

from serve import read_job, serve

job = read_job()
os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

TABLE = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
WIDTHS = [round(channels * job["width"]) for channels in TABLE]


def network():
    x = inputs = keras.Input((job["size"], job["size"], 3))
    for width in WIDTHS:
        if not width:
            x = layers.MaxPooling2D()(x)
            continue
        x = layers.Conv2D(width, 3, padding="same")(x)
        if job["batch_norm"]:
            x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    x = layers.Dense(10, dtype="float32")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def main():
    low = job["dtype"] == "bfloat16"
    keras.config.set_dtype_policy("mixed_bfloat16" if low else "float32")
    model = network()
    model.compile(
        keras.optimizers.SGD(1e-3, momentum=0.9, weight_decay=5e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=job["compile"],
    )
    numbers = np.random.default_rng(0)
    shape = (job["batch"], job["size"], job["size"], 3)
    images = tf.constant(numbers.normal(size=shape).astype(np.float32))
    labels = tf.constant(numbers.integers(0, 10, job["batch"]))
    infer = tf.function(lambda x: model(x, training=False), jit_compile=job["compile"])

    def train_steps(n):  # what `fit` runs for each batch
        for _ in range(n):
            model.train_on_batch(images, labels)

    def infer_steps(n):
        for _ in range(n):
            infer(images).numpy()

    serve(
        train_steps if job["mode"] == "train" else infer_steps, version=tf.__version__
    )


main()
