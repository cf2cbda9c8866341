"""Spec, registry, models, tasks, the training loop, budgets, meters, records and the command line."""
