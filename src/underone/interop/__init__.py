"""Models from elsewhere: diffusers folders read and written, and models on the Hub."""

from underone.interop.names import is_from_elsewhere, load_named

__all__ = ["is_from_elsewhere", "load_named"]
