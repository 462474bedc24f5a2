"""The heart: plan (pure), step execution over the ledger, containment, replay, resume. See docs/design.md, Rooms."""
