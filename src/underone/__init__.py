"""underone: a laboratory for diffusion sampling."""

__version__ = "0.1.0"
