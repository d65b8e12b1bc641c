"""The object graph of a TensorFlow 2 checkpoint: which objects were saved, and under what names they hold each other.

It is one protocol buffer in the string tensor ``_CHECKPOINTABLE_OBJECT_GRAPH``; node 0 is the root. The messages, with
the field numbers that are used here:

    Graph        1 nodes, repeated
    Node         1 children, repeated   2 attributes, repeated   5 has_checkpoint_values {1 value}
    Child        1 node_id   2 local_name
    Attribute    1 name   2 full_name   3 checkpoint_key
"""

from __future__ import annotations

from typing import NamedTuple

from ..reading import LIMITS, check_limit
from ..tensorbundle import CheckpointError
from ..tensorbundle.wire import Message, each_message, integer, message

VARIABLE = b"VARIABLE_VALUE"  # the attribute that is a variable's value


class Node(NamedTuple):
    """An object: node numbers by attribute name; of a variable, its name and its key in the checkpoint."""

    children: dict[str, int]
    variable: tuple[str, str] | None = None


def encode(nodes: list[Node]) -> bytes:
    """The bytes of a graph."""
    return b"".join(message(1, _encode(node)) for node in nodes)


def _encode(node: Node) -> bytes:
    held = b"".join(message(1, integer(1, n) + message(2, name.encode())) for name, n in node.children.items())
    if node.variable is not None:
        name, key = (text.encode() for text in node.variable)
        held += message(2, message(1, VARIABLE) + message(2, name) + message(3, key))
    return held + message(5, integer(1, 1) if held else b"")


def decode(data: bytes, most: int = LIMITS.objects) -> list[Node]:
    """The nodes of a graph.

    Raises CheckpointError for bytes that are not a graph, and for more than `most` nodes or ten children a node.
    """
    nodes: list[Node] = []
    children = 0
    for node in each_message(data, 1):
        nodes.append(_decode(node))
        children += len(nodes[-1].children)
        check_limit("an object graph of {} nodes", len(nodes), most)
        check_limit("an object graph of {} children", children, 10 * most)
    if any(not 0 <= number < len(nodes) for node in nodes for number in node.children.values()):
        raise CheckpointError("an object graph that holds a node which is not in it")
    return nodes


def _decode(node: Message) -> Node:
    children = {_name(child, 2): child.integer(1, 32) for child in node.messages(1)}
    values = [attribute for attribute in node.messages(2) if attribute.text(1) == VARIABLE]
    return Node(children, (_text(values[-1], 2), _name(values[-1], 3)) if values else None)


def _text(holder: Message, field: int) -> str:
    return holder.text(field).decode("utf-8", "replace")


def _name(holder: Message, field: int) -> str:
    if field not in holder:
        raise CheckpointError("an object graph with a name that is no text")
    return _text(holder, field)
