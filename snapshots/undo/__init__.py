"""Reverting exactly what a selection of writes did, keeping later work."""
