"""Other people's models: feature extractors from elsewhere."""

from underone.adapters.extractors import find_extractor

__all__ = ["find_extractor"]
