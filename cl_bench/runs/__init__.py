"""Run folders: paths, records, status, lock, submission, provenance and identity."""
