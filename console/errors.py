"""Errors of the command line itself."""

from __future__ import annotations


class Unreachable(Exception):
    """A server the command needs is not running; the message says how to start it."""


class BadUse(Exception):
    """Options that do not go together; the message says which do."""
