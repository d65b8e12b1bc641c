"""Time minilstm and other libraries on the same work."""
