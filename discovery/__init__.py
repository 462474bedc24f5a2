"""Drafting a catalogue from a live platform and database, and holding one against them. Reads only."""
