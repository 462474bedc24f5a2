"""Notices: who is told what about an incident, once per state change and channel. See docs/notices.md."""
