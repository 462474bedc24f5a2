"""See docs/design.md, Rooms."""
