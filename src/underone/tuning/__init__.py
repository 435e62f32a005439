"""Fitting a sampler to one model, one number of steps and one guidance, by its own features.

Nothing here knows of a metric or an extractor: what is tuned is never tuned on what measures it.
"""
