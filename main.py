"""Trains a VGG: `python main.py --config=configs/quickstart.py`.

The same as `python -m vgg_jax train`; see `python main.py --help`.
"""

import sys

from vgg_jax.cli.command import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
