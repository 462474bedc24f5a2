"""Removing a person from twins, segments and points, for good."""
