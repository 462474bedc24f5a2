"""Reports, scorecards and trends over HTTP, for the browser beside the Prefect UI: read-only, on loopback, behind the
same password. Start with ``python -m console.pages --port 4300``.
"""
