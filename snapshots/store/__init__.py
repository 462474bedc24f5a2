"""Where points are kept: objects, locks, encryption, retention."""
