"""Trained models for other libraries, and back: `torch`, `keras`, `tf2`, `onnx`, `npz`, one module for each format.

Every module has

    save(path, model, params, *, extra=None)      writes a file; returns the lines of Python that open it
    load(path, model=None, *, options=None)       reads a file; returns (model, params, extra)
    mapping(model)                                the names that our weights have in the file
    opened(code)                                  runs the lines that save returned; returns their function ``forward``

An optional library is imported only when it is used; if it is missing, the error says how to install it. What a library
cannot express is refused. To add a format, write such a module and name it in `convert.FORMATS`.

    format          what a format offers, and what the formats share
    layout          where each library keeps the four gates: no other module knows it
    shapes          the shapes of an LSTM's arrays in each library, compared with a file's
    parts           a model as a row of layers that other libraries have too
    infer           a model from the names and shapes of a file that does not describe it
    keras_config    Keras layers as JSON and as Python
    keras_rows      a model from its layers in order, each with the names of its arrays
    keras_legacy    the names in the HDF5 files of Keras 2
    object_graph    the objects of a TensorFlow 2 checkpoint
    keras_graph     a Keras model in a TensorFlow 2 checkpoint
    onnx_graph      the graph of a model
    arrays          zip files, and bytes as arrays
    safetensors     the format of PyTorch's state dicts
    hdf5            the format of Keras's weights
    convert         any format to any other
"""
