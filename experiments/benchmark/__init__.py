"""minilstm and other libraries on the same work, timed side by side."""
