"""Training of one run: the loop, its engine, model, telemetry, validation and checkpoints."""
