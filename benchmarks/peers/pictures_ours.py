"""vgg_jax: batches of a folder of pictures, by `batches.training`."""

import itertools

from serve import read_job, serve

from vgg_jax.data import batches, datasets

job = read_job()


def main():
    dataset = datasets.load(
        f"folder:{job['folder']}",
        validation="none",
        train="train[2:]",
        test="train[:2]",
        size=job["size"],
        scales=job["scales"],
        workers=job["workers"],
        report=lambda text: None,
    )
    epochs = itertools.count()

    def steps(n):
        left = n
        while left:
            read = batches.training(
                dataset.train,
                seed=0,
                batch_size=job["batch"],
                epoch=next(epochs),
                start=0,
                remainder="drop",
            )
            for _ in itertools.islice(read, left):
                left -= 1

    serve(steps)


if __name__ == "__main__":
    main()
