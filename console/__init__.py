"""The `reinstate` command and the report. See docs/design.md, Rooms."""
