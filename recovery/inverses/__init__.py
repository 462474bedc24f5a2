"""One attempt at a declared inverse, by kind: SQL, an HTTP call, a run of another workflow."""
