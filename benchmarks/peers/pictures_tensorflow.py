"""tf.data: batches of a folder of pictures; it decodes and scales the crop alone."""

from serve import read_job, serve

job = read_job()

import itertools  # noqa: E402
from pathlib import Path  # noqa: E402

import tensorflow as tf  # noqa: E402

SIZE = job["size"]


def crop(file):
    data = tf.io.read_file(file)
    height, width = tf.unstack(tf.image.extract_jpeg_shape(data)[:2])
    least, most = job["scales"]
    scale = tf.random.uniform((), least, most + 1, tf.int32)
    side = SIZE * tf.minimum(height, width) // scale
    top = tf.random.uniform((), 0, height - side + 1, tf.int32)
    left = tf.random.uniform((), 0, width - side + 1, tf.int32)
    window = tf.stack([top, left, side, side])
    image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
    image = tf.image.resize(image, (SIZE, SIZE), antialias=True)
    return tf.cast(tf.round(image), tf.uint8)


def main():
    files = sorted(map(str, Path(job["folder"]).glob("*/*.jpg")))

    def steps(n):
        dataset = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files))
        dataset = dataset.repeat().map(crop, tf.data.AUTOTUNE).batch(job["batch"])
        for _ in itertools.islice(dataset.prefetch(tf.data.AUTOTUNE), n):
            pass

    serve(steps, version=tf.__version__)


main()
