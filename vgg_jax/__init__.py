"""VGG (Simonyan & Zisserman, 2014) in JAX: the networks, their training, their speed.

Importing changes no global state; `vgg_jax.backend.configure()` does, on request.
"""

__version__ = "0.1.0"
