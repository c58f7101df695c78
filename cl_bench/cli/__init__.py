"""The `cl-bench` command line."""
