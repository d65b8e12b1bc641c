"""The discipline of every reader: limits that are stated, and one kind of error, which begins with the path.

A file may come from anywhere. Whatever its bytes are, reading it gives a result, a `CheckpointError` (a ValueError) or,
if the disk refuses, an OSError. A function that reads files is marked with `reader`; it takes the bytes from `content`
and JSON from `from_json`, and compares what a file claims with its size, or with `Limits`, before it allocates memory.

    limits        what a file may claim
    discipline    files as bytes, and whatever goes wrong as one kind of error
    jsontext      JSON
    terminal      texts from files, as a terminal may show them
"""

from .discipline import READERS as READERS
from .discipline import content as content
from .discipline import reader as reader
from .discipline import reading as reading
from .jsontext import from_json as from_json
from .limits import LIMITS as LIMITS
from .limits import Limits as Limits
from .limits import check_limit as check_limit
from .terminal import printable as printable
