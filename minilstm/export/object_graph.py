"""The object graph of a TensorFlow 2 checkpoint: which objects were saved, and under what names they hold each other.

It is one protocol buffer in the string tensor ``_CHECKPOINTABLE_OBJECT_GRAPH``; node 0 is the root. The messages, with
their field numbers, as far as they matter here:

    Graph        1 nodes, repeated
    Node         1 children, repeated   2 attributes, repeated   5 has_checkpoint_values {1 value}
    Child        1 node_id   2 local_name
    Attribute    1 name   2 full_name   3 checkpoint_key
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..tensorbundle import CheckpointError
from ..tensorbundle.varint import decode_varint, encode_varint

VARIABLE = b"VARIABLE_VALUE"  # the attribute that is a variable's value
_VARINT, _BYTES = 0, 2


class Node(NamedTuple):
    """An object: node numbers by attribute name; of a variable, its name and its key in the checkpoint."""

    children: dict[str, int]
    variable: tuple[str, str] | None = None


def encode(nodes: list[Node]) -> bytes:
    """The bytes of a graph."""
    return b"".join(_message(1, _encode(node)) for node in nodes)


def _encode(node: Node) -> bytes:
    # node_id comes first and is left out where it is 0, but nobody holds the root
    children = [_message(1, _integer(1, n) + _message(2, name.encode())) for name, n in node.children.items()]
    attributes = []
    if node.variable is not None:
        texts = (VARIABLE, *(text.encode() for text in node.variable))
        attributes = [_message(2, b"".join(_message(k, text) for k, text in enumerate(texts, start=1)))]
    has_values = _integer(1, 1) if children or attributes else b""
    return b"".join([*children, *attributes, _message(5, has_values)])


def _integer(field: int, number: int) -> bytes:
    return encode_varint(field << 3 | _VARINT) + encode_varint(number)


def _message(field: int, content: bytes) -> bytes:
    return encode_varint(field << 3 | _BYTES) + encode_varint(len(content)) + content


def decode(data: bytes) -> list[Node]:
    """The nodes of a graph; CheckpointError for bytes that are not one."""
    nodes = [_decode(content) for field, content in _fields(data) if field == 1 and isinstance(content, bytes)]
    if any(number >= len(nodes) for node in nodes for number in node.children.values()):
        raise CheckpointError("an object graph that holds a node which is not in it")
    return nodes


def _decode(data: bytes) -> Node:
    children: dict[str, int] = {}
    variable = None
    for field, content in _fields(data):
        if field not in (1, 2) or not isinstance(content, bytes):
            continue
        parts = dict(_fields(content))
        if field == 1:
            children[_text(parts.get(2))] = int(parts.get(1, 0))
        elif parts.get(1) == VARIABLE:
            variable = _text(parts.get(2, b"")), _text(parts.get(3))
    return Node(children, variable)


def _text(content: int | bytes | None) -> str:
    if not isinstance(content, bytes):
        raise CheckpointError("an object graph with a name that is no text")
    return content.decode("utf-8", "replace")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and value of every field; only integers and length-delimited fields occur."""
    at = 0
    while at < len(data):
        tag, at = decode_varint(data, at, len(data))
        number, at = decode_varint(data, at, len(data))
        if tag & 7 == _VARINT:
            yield tag >> 3, number
            continue
        if tag & 7 != _BYTES or number > len(data) - at:
            raise CheckpointError("an object graph that is cut short, or holds what it should not")
        yield tag >> 3, data[at : at + number]
        at += number
