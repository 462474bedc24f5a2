"""Measurements of what is promised in numbers: ``python -m benchmarks``, one file per benchmark."""
