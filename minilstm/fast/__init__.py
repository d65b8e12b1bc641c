"""Quick twins of readable code.

Every module here computes what a readable module outside computes, and a test holds the two together; a reader may skip
this folder. `memory`, `loans` and `compiled.workers` compute nothing: they serve the others.
"""
