"""Drafting a catalogue from a live platform and database, and holding a catalogue against them."""
