"""The inside of `harness.training.train`: schedule, engines, checkpoints, and the proof that something moved."""
