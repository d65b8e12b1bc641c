"""`fit`, the training loop, and its parts: batches, windows, checkpoints, history, signals."""

from .fitting import fit as fit
