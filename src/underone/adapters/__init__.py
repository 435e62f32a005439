"""Other people's models: feature extractors from elsewhere."""

from underone.adapters.extractors import extractor_of, find_extractor
from underone.adapters.function import FunctionExtractor

__all__ = ["FunctionExtractor", "extractor_of", "find_extractor"]
