"""A proof that a chat template only prints contents: then its text around them depends on nothing but the roles.

The proof is by the template's syntax tree. A content may be joined with other text and printed, without its outer
whitespace too, and whether there is one may be tested. Any other use of a content or of a whole message, and every
statement that is not listed here, makes the proof fail.
"""

from __future__ import annotations

from jinja2 import Environment, TemplateError, nodes

__all__ = ["only_prints_contents"]

_STATEMENTS = (nodes.Output, nodes.If, nodes.For, nodes.Assign, nodes.Break, nodes.Continue)
_CONDITIONS = (nodes.And, nodes.Or, nodes.Not)
_PARTS = (nodes.Getattr, nodes.Getitem)
_COUNTERS = frozenset({"index", "index0", "revindex", "revindex0", "first", "last", "length"})
"""Attributes of `loop` that are no messages."""


def only_prints_contents(source: str) -> bool:
    """Whether the template provably prints contents that are not blank as they are, or without their outer whitespace.

    `source`: a template that gets `messages`, whose only keys are `role` and `content`, both of them text.
    """
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(source)  # noqa: S701  nothing is rendered
    except (TemplateError, RecursionError):
        return False
    loops = [loop for loop in tree.find_all(nodes.For) if isinstance(loop.iter, nodes.Name)]
    messages = {getattr(loop.target, "name", "") for loop in loops if getattr(loop.iter, "name", "") == "messages"}
    proof = _Proof(tree, messages | {"messages"})
    statements = all(isinstance(node, _STATEMENTS) for node in tree.find_all(nodes.Stmt))
    return statements and all(map(proof.holds, tree.find_all(nodes.Name)))


class _Proof:
    """`names`: those that may hold a message, or all of them."""

    def __init__(self, tree: nodes.Node, names: set[str]) -> None:
        self.names = names
        self.parents: dict[int, nodes.Node] = {}
        for node in (tree, *tree.find_all(nodes.Node)):
            self.parents |= {id(child): node for child in node.iter_child_nodes()}

    def holds(self, name: nodes.Name) -> bool:
        """Whether the template only prints contents that it gets by this name."""
        node: nodes.Node = name
        parent = self.parents[id(node)]
        if name.name in ("loop", "self"):
            return isinstance(parent, nodes.Getattr) and parent.attr in _COUNTERS
        if name.name not in self.names:
            return True
        if isinstance(parent, nodes.For) and name is not parent.test:
            return name is parent.target or name.name == "messages"
        if name.name == "messages":
            if not isinstance(parent, nodes.Getitem) or name is not parent.node or isinstance(parent.arg, nodes.Slice):
                return False
            if isinstance(getattr(parent.arg, "value", None), str):
                return False
            node, parent = parent, self.parents[id(parent)]
        if not isinstance(parent, _PARTS) or node is not parent.node:
            return False
        key = parent.attr if isinstance(parent, nodes.Getattr) else getattr(parent.arg, "value", None)
        return self._is_shown(parent) if key == "content" else isinstance(key, str) and not hasattr(dict, key)

    def _is_shown(self, content: nodes.Node) -> bool:
        """Whether a content is only printed, or only tested for being there."""
        parent = self.parents[id(content)]
        if isinstance(parent, nodes.Filter) and parent.name == "trim" and len(list(parent.iter_child_nodes())) == 1:
            content, parent = parent, self.parents[id(parent)]
        decides = isinstance(parent, (*_CONDITIONS, nodes.If))
        while isinstance(parent, _CONDITIONS if decides else (nodes.Add, nodes.Concat)):
            content, parent = parent, self.parents[id(parent)]
        return isinstance(parent, nodes.If) and parent.test is content if decides else isinstance(parent, nodes.Output)
