"""TensorFlow's V2 checkpoint format ("tensor bundle"), read and written without TensorFlow.

Names and arrays in, files out, and back; nothing here knows what the tensors mean.

    crc32c, varint, snappy    checksums and codings
    table                     the sorted table that an index file is
    wire, proto               protocol buffers, and the messages in the table
    dtypes, strings           arrays as bytes
    slices                    partitioned variables
    paths, source             file names; reading files of unknown origin
    index, values, reader     reading
    writer                    writing
    state_text, state         the `checkpoint` file of a folder
"""

from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.reader import Bundle, TensorInfo, list_variables, read
from minilstm.tensorbundle.reader import open_bundle as open
from minilstm.tensorbundle.state import STATE_FILE, all_checkpoints, latest, listed, publish, remove
from minilstm.tensorbundle.writer import write

__all__ = [
    "STATE_FILE",
    "Bundle",
    "CheckpointError",
    "TensorInfo",
    "all_checkpoints",
    "latest",
    "list_variables",
    "listed",
    "open",
    "publish",
    "read",
    "remove",
    "write",
]
