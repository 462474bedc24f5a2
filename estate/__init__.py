"""The embedded estate: PostgreSQL, n8n and a Prefect server under one directory, for demo, drills and tests."""
