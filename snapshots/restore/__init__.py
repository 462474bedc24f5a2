"""Rows, tables or a whole app back to a point or a tick."""
