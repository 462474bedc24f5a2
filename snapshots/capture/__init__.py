"""Reading an app's tables into a recovery point, in full or what changed."""
