"""A network in and out: names of layers, weights of other programs."""
