"""An experiment over many settings and seeds."""
