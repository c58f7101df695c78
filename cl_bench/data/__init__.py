"""Tokens: text, tokenizers, files and mixtures, and the batches of a step."""
