"""Other people's models: feature extractors from elsewhere."""

from underone.adapters.extractors import extractor_of, find_extractor

__all__ = ["extractor_of", "find_extractor"]
