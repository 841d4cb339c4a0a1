"""Positive-unlabeled diffusion models: train a generative model that leaves out what must not be generated."""

__version__ = "0.1.0"
