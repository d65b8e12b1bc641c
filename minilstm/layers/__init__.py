"""Layers: recipes that make parameters and apply them."""

from .base import Layer
from .bidirectional import Bidirectional
from .feedforward import Dense, Dropout, Embedding
from .recurrent import LSTM, RNN
from .sequential import Sequential, from_config

__all__ = ["LSTM", "RNN", "Bidirectional", "Dense", "Dropout", "Embedding", "Layer", "Sequential", "from_config"]
