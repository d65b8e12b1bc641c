"""Scripts a person runs and copies: ``python -m experiments.sunspots``."""
