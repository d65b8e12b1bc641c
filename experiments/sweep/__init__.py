"""Run an experiment over many settings and seeds."""
