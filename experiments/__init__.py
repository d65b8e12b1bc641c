"""Experiments to run and to copy: ``python -m experiments.sunspots``."""
