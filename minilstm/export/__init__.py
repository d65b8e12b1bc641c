"""Trained models for other libraries, and back: `torch`, `keras`, `tf2`, `onnx`, `npz`, a module each.

Every module has ``save(path, model, params, *, extra=None)``, which returns the lines of Python that open the file over
there, and ``load(path, model=None)``, which returns ``(model, params, extra)``. Optional libraries are imported only
when they are used; if one is missing, the error says how to install it. What a library cannot express is refused.

    layout          where each library keeps the four gates: the only place that knows
    parts           a model as a row of layers that other libraries have too
    infer           a model from the names and shapes of a file that does not describe it
    keras_config    Keras layers as JSON and as Python
    onnx_graph      the graph of a model
"""
