"""One module per kind of step. Each ``act`` is idempotent: it looks at the world before it changes it."""
