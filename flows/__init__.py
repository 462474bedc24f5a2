"""Prefect flows and tasks: thin; the only room that imports Prefect. See docs/design.md, The flows."""
