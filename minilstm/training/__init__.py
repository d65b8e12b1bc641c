"""The training loop: `fit`, and all it needs."""

from .fitting import fit as fit
