"""What `reinstate up` runs and supervises. See docs/design.md, The three ways in."""
