"""TensorFlow's checkpoints, without TensorFlow: the format V2 ("tensor bundle") read and written, V1 read.

Names and arrays in, files out, and back; nothing here knows what the tensors mean.

    crc32c, varint, packed, snappy    checksums and codings
    blocks, table                     the sorted table that an index file is, and a V1 file
    wire, proto, slice_proto          protocol buffers, and the messages in the table
    dtypes, shapes, strings           arrays as bytes
    slices                            partitioned variables
    paths, source                     file names; reading files of unknown origin
    bundle, opening                   an open checkpoint of either format
    index, values, reader             reading V2
    slice_file                        reading V1
    writer                            writing V2
    state_text, state                 the `checkpoint` file of a folder
"""

from minilstm.tensorbundle.bundle import Bundle, TensorInfo
from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.opening import list_variables, read
from minilstm.tensorbundle.opening import open_bundle as open
from minilstm.tensorbundle.state import STATE_FILE, all_checkpoints, find_latest, latest, listed, publish, remove
from minilstm.tensorbundle.table import is_table
from minilstm.tensorbundle.writer import write

__all__ = [
    "STATE_FILE",
    "Bundle",
    "CheckpointError",
    "TensorInfo",
    "all_checkpoints",
    "find_latest",
    "is_table",
    "latest",
    "list_variables",
    "listed",
    "open",
    "publish",
    "read",
    "remove",
    "write",
]
