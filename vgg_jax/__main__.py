"""`python -m vgg_jax <command>`: the same as the console script `vgg`."""

from vgg_jax.cli.command import main

if __name__ == "__main__":
    main()
