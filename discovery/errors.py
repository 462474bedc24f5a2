"""What can go wrong while looking around.

``DiscoveryError``
 `- ``NothingFound``  the platform has no workflow, or no workflow uses a table
"""

from __future__ import annotations


class DiscoveryError(Exception):
    """Base of this room: object, cause and next step in one line."""


class NothingFound(DiscoveryError):
    """There is nothing to describe. Look at another platform or database."""
