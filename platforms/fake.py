"""See platforms/base.py."""
