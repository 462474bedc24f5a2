"""The small server in front of webhooks: it keeps what comes while a workflow is paused. See docs/design.md."""
