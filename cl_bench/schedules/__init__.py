"""Schedules of sequence length, batch size and learning rate, as functions of step and tokens."""
