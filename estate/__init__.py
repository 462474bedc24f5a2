"""The embedded estate: PostgreSQL, n8n and a Prefect server under one directory, for demo, drills and tests."""

from estate.errors import EstateError
from estate.estate import PARTS, Addresses, Estate, PartStatus, default_cache, default_home
from estate.progress import Progress

__all__ = ["PARTS", "Addresses", "Estate", "EstateError", "PartStatus", "Progress", "default_cache", "default_home"]
