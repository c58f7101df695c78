"""Zero-shot evaluation and export of trained models."""
