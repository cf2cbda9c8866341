"""Optimizers by the names of transformers' `optim`, and the engines of those that need more than a gradient."""
