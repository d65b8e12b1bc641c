"""The Keras model in a TensorFlow 2 checkpoint, found by walking its object graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..reading import LIMITS, Limits
from .keras_layers import CELL_ARRAYS, DIRECTIONS
from .object_graph import Node, decode
from .shapes import Shape, kind_by

EXPORTED_CELLS = ("lstm_cell", "gru_cell")
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
OF_TRAINING = ("optimizer", "metric", "seed_generator", "loss_tracker")  # in the names of attributes
Holders = tuple[tuple[str, int], ...]  # what holds the variables of a layer: the folder of their names, and the node


class Layers(NamedTuple):
    """The keys of each Keras layer's variables by Keras's names, in the layers' order.

    A layer without weights has none, if it is there at all: what Keras 3 exports lists weights alone. `beside` is what
    was saved besides these layers and the state of a training, if there is anything: an object that holds the model, or
    a variable.
    """

    keys: list[dict[str, str]]
    lists_all: bool
    beside: str | None = None


def keys_by_layer(graph: bytes, shapes: Mapping[str, Shape], where: str, limits: Limits = LIMITS) -> Layers:
    """The layers of a checkpoint from its `graph`.

    `shapes` are those of the checkpoint's arrays by key. Raises ValueError unless the checkpoint holds exactly one
    model, whose layers hold no other variables and share none, and for what is beyond `limits`.
    """
    nodes = decode(graph, limits.objects)
    models: dict[tuple[Holders, ...], list[int]] = {}  # the holders of its weights, by layer -> all of its layers
    owners: set[int] = set()
    for owner, numbers in _rows_of_layers(nodes):
        layers = [_holders(number, nodes) for number in numbers]
        weighted = [holders for holders in layers if any(_variables(nodes[holder], nodes) for _, holder in holders)]
        single = [holder for holders in weighted for _, holder in holders]
        if len(set(single)) != len(single):
            raise ValueError(f"{where}: two layers of the checkpoint share their weights")
        cells = {holder for holders in layers for _, holder in holders} - set(numbers)
        if weighted and not all(_variables(nodes[holder], nodes) for holder in cells):
            raise ValueError(f"{where}: a layer has a cell without weights, which is no LSTM or GRU")
        if weighted:
            models[tuple(weighted)] = numbers
            owners.add(owner)
    if not models:
        exported = _exported(nodes, shapes, where)
        if exported:
            return Layers(exported, False)
    if len(models) != 1:
        raise ValueError(f"{where}: the checkpoint must hold one Keras model with weights, got {len(models)}")
    (numbers,) = models.values()
    keys = [
        {
            folder + name: key
            for folder, holder in _holders(number, nodes)
            for name, key in _variables(nodes[holder], nodes).items()
        }
        for number in numbers
    ]
    taken = {key for layer in keys for key in layer.values()}
    others = sorted(key for key in _reachable(nodes, numbers) - taken if "seed_generator" not in key)
    if others:
        raise ValueError(f"{where}: a layer holds {others[0]}, which is of no LSTM, GRU, Dense or Embedding")
    missing = sorted(taken - shapes.keys())
    if missing:
        raise ValueError(f"{where}: the checkpoint has no {', '.join(missing[:5])}, which its graph names")
    return Layers(keys, True, _beside(nodes, owners, taken, shapes))


def _beside(nodes: list[Node], owners: set[int], taken: set[str], shapes: Mapping[str, Shape]) -> str | None:
    """What was saved besides the layers of a model, whose node is one of `owners`: see `Layers`."""
    paths, waiting = {0: ""}, [0]  # of the nodes, without those of a training's state
    for number in waiting:
        for name, child in nodes[number].children.items():
            if child not in paths and not any(word in name for word in OF_TRAINING):
                paths[child] = f"{paths[number]}{name}/".replace("_functional/", "")
                waiting.append(child)
    depths = {paths[owner].count("/"): paths[owner] for owner in owners if owner in paths}
    if depths and (min(depths) > 1 or depths[min(depths)].startswith("layer")):
        return f"an object that holds the model as {depths[min(depths)][:-1]!r}"
    variables = [nodes[number].variable for number in paths]
    keys = sorted(variable[1] for variable in variables if variable is not None)
    return next((key for key in keys if key not in taken and shapes.get(key, ())), None)


def _exported(nodes: list[Node], shapes: Mapping[str, Shape], where: str) -> list[dict[str, str]]:
    """The keys by layer of what Keras 3's ``model.export`` wrote: it has no layers, but names of variables.

    The root holds the list ``variables``, in the order of the layers, named such as ``stack/lstm/lstm_cell/kernel``.
    """
    places = nodes[nodes[0].children.get("variables", 0)].children if nodes else {}
    layers: dict[str, dict[str, str]] = {}
    for place in sorted((place for place in places if place.isdecimal()), key=int):
        variable = nodes[places[place]].variable
        if variable is None or "seed_generator" in variable[0]:
            continue
        name, key = variable
        folder, _, array = name.rpartition("/")
        inner = folder.rpartition("/")[2]
        is_known = array in ("kernel", "recurrent_kernel", "bias", "embeddings")
        is_of_cell = inner.endswith("_cell") or array == "recurrent_kernel"
        if not is_known or (is_of_cell and inner not in EXPORTED_CELLS):
            raise ValueError(f"{where}: {name} is of no LSTM, GRU, Dense or Embedding")
        if key not in shapes:
            raise ValueError(f"{where}: the checkpoint has no {key}, which its graph names")
        if array in layers.setdefault(folder, {}):
            raise ValueError(f"{where}: there are two variables named {name}")
        layers[folder][array] = key
        if array == "recurrent_kernel" and inner != f"{kind_by(shapes[key]).lower()}_cell":
            raise ValueError(f"{where}: {name} has shape {shapes[key]}, which no {inner} has")
    return _both_directions(layers, shapes, where)


def _both_directions(
    layers: Mapping[str, dict[str, str]], shapes: Mapping[str, Shape], where: str
) -> list[dict[str, str]]:
    """Exported layers in which the cells of a Bidirectional, ``both/forward_x`` and ``both/backward_x``, are one layer.

    Two layers of a model that is called ``both`` could have these names, too. Their shapes tell, unless the first has
    as many inputs as units: then they are refused, unless ``both`` is Keras's own name for a Bidirectional.
    """
    rows, folders = [], iter(layers)
    for folder in folders:
        layer, _, cell = folder.rpartition("/")
        both, _, name = layer.rpartition("/")
        if cell not in EXPORTED_CELLS or not name.startswith(("forward_", "backward_")):
            rows.append(layers[folder])
            continue
        pair = [layers[folder], layers.get(next(folders, ""), {})]
        other = f"{both}/{name.replace('forward', 'backward', 1)}/{cell}"
        sizes = [{array: shapes[key] for array, key in keys.items()} for keys in pair]
        is_pair = layers.get(other) is pair[1] and sizes[0] == sizes[1] and set(sizes[0]) == set(CELL_ARRAYS)
        is_told = both.rpartition("/")[2].startswith("bidirectional")
        if not is_pair or not (is_told or sizes[0]["kernel"][:1] != sizes[0]["recurrent_kernel"][:1]):
            raise ValueError(f"{where}: {layer} may be a layer of its own or a direction of a Bidirectional")
        rows.append(
            {way + array: key for way, keys in zip(DIRECTIONS, pair, strict=True) for array, key in keys.items()}
        )
    return rows


def _rows_of_layers(nodes: list[Node]) -> Iterator[tuple[int, list[int]]]:
    """The node and the layers of everything that could be a model, each row once."""
    seen = set()
    for number, node in enumerate(nodes):
        children = node.children
        held = children.get("_operations")
        if held is None:
            row = [children[f"layer-{k}"] for k in range(len(children)) if f"layer-{k}" in children]
        elif held in seen:  # many nodes may hold one list
            continue
        else:  # a list, whose attributes are its places
            seen.add(held)
            places = nodes[held].children
            row = [places[key] for key in sorted(filter(str.isdecimal, places), key=int)]
            if row and not any(_variables(nodes[holder], nodes) for _, holder in _holders(row[0], nodes)):
                row = row[1:]  # the input
        if row:
            yield number, list(dict.fromkeys(row))


def _holders(number: int, nodes: list[Node]) -> Holders:
    """The cell of a layer, both cells of a Bidirectional, the Dense in a TimeDistributed, or the layer itself."""
    children = nodes[number].children
    both = [(f"{folder}/", children[folder]) for folder in ("forward_layer", "backward_layer") if folder in children]
    if len(both) == 2:
        return tuple((folder, nodes[layer].children.get("cell", layer)) for folder, layer in both)
    inner = children.get("layer", number)
    if _variables(nodes[inner], nodes).keys() == {"kernel", "bias"}:  # a Dense in a TimeDistributed, or bare
        return (("", inner),)
    return (("", children.get("cell", number)),)


def _variables(holder: Node, nodes: list[Node]) -> dict[str, str]:
    """The keys of the variables that a layer or cell holds, by name; Keras 3 puts an underscore before some names."""
    held = {name.removeprefix("_"): nodes[child].variable for name, child in holder.children.items()}
    return {name: variable[1] for name, variable in held.items() if variable is not None}


def _reachable(nodes: list[Node], numbers: list[int]) -> set[str]:
    """The keys of all variables that some layers hold, at any depth."""
    seen, waiting = set(numbers), list(numbers)
    keys = set()
    while waiting:
        node = nodes[waiting.pop()]
        if node.variable is not None:
            keys.add(node.variable[1])
        new = set(node.children.values()) - seen
        seen |= new
        waiting += new
    return keys
