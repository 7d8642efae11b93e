"""Plans as pictures: tasks, what they share, and who can call whom; for Graphviz, or as an SVG of our own.

The SVG is drawn in columns: whoever calls stands left of whom it calls, as far as there are no circles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from l4re.ned.plan import RECEIVE, Plan

__all__ = ["dot", "svg"]

_SHARED = ("dataspace", "irq", "semaphore", "namespace")
_CHAR, _LINE, _PAD = 7.2, 18, 12
_GAP_X, _GAP_Y, _MARGIN = 130, 30, 24
_HEIGHT = 2 * _LINE + _PAD


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    lines: tuple[str, ...]
    task: bool


@dataclass(frozen=True, slots=True)
class _Edge:
    start: str
    end: str
    label: str
    #: Whether it is a call; else a task holds what is at the end.
    call: bool


def _graph(plan: Plan) -> tuple[list[_Node], list[_Edge]]:
    nodes = [_Node(task.name, (task.name, task.program), task=True) for task in plan.tasks]
    calls: dict[tuple[str, str], list[str]] = {}
    for reach in plan.reaches():
        calls.setdefault((reach.client, reach.server), []).append(f"{reach.cap} ({reach.rights})")
    edges = [_Edge(start, end, ", ".join(dict.fromkeys(labels)), call=True) for (start, end), labels in calls.items()]
    holds: dict[str, dict[str, list[str]]] = {}
    for task in plan.tasks:
        for name, cap in plan.held(task):
            if cap.kind in _SHARED and cap.kind != RECEIVE and not cap.source.startswith("Env."):
                holds.setdefault(cap.source, {}).setdefault(task.name, []).append(f"{name} ({cap.rights})")
    for source, holders in holds.items():
        each = plan.objects[source]
        size = f"{each.words[0]} bytes" if each.kind == "dataspace" and each.words else each.kind
        nodes.append(_Node(f"={source}", (source, size), task=False))
        edges += [_Edge(task, f"={source}", ", ".join(names), call=False) for task, names in holders.items()]
    return nodes, edges


def dot(plan: Plan) -> str:
    """Return the picture in the language of Graphviz."""
    nodes, edges = _graph(plan)
    lines = ["digraph plan {", "  rankdir=LR;", '  node [fontname="sans-serif"];', '  edge [fontname="sans-serif"];']
    for node in nodes:
        shape = "shape=box" if node.task else "shape=box, style=rounded, color=gray40"
        label = "\\n".join(map(_escaped, node.lines))
        lines.append(f'  "{_escaped(node.name)}" [{shape}, label="{label}"];')
    for edge in edges:
        style = "" if edge.call else ", style=dashed, arrowhead=none"
        lines.append(f'  "{_escaped(edge.start)}" -> "{_escaped(edge.end)}" [label="{_escaped(edge.label)}"{style}];')
    return "\n".join([*lines, "}", ""])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


# ---- SVG ----


def svg(plan: Plan) -> str:
    """Return the picture as an SVG."""
    nodes, edges = _graph(plan)
    columns = _columns(nodes, edges)
    places: dict[str, tuple[float, float, float]] = {}  # left, top, width
    tallest = max((len(column) for column in columns), default=0) * (_HEIGHT + _GAP_Y)
    left = float(_MARGIN)
    for column in columns:
        width = max(max(len(line) for line in node.lines) for node in column) * _CHAR + 2 * _PAD
        top = _MARGIN + (tallest - len(column) * (_HEIGHT + _GAP_Y)) / 2
        for node in column:
            places[node.name] = (left, top, width)
            top += _HEIGHT + _GAP_Y
        labels = [len(edge.label) for edge in edges if edge.start in {node.name for node in column}]
        left += width + max(_GAP_X, max(labels, default=0) * _CHAR * 0.8 + 2 * _PAD)
    right = max((x + width for x, _, width in places.values()), default=200.0) + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{right:.0f}" height="{tallest + 2 * _MARGIN:.0f}" '
        f'viewBox="0 0 {right:.0f} {tallest + 2 * _MARGIN:.0f}" font-family="sans-serif" font-size="13">',
        f"<title>{escape(plan.script)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto-start-reverse"><path d="M0,0 L8,4 L0,8 z" fill="#345"/></marker></defs>',
        '<rect width="100%" height="100%" fill="white"/>',
        *(_drawn_edge(edge, places) for edge in edges),
        *(_drawn_node(node, places[node.name]) for node in nodes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _columns(nodes: list[_Node], edges: list[_Edge]) -> list[list[_Node]]:
    """Put callers left of those they call, and neighbours near each other."""
    forward = _without_circles([node.name for node in nodes], edges)
    depth = {node.name: 0 for node in nodes}
    for _ in nodes:  # the longest way to each
        moved = False
        for start, end in forward:
            if depth[end] < depth[start] + 1:
                depth[end] = depth[start] + 1
                moved = True
        if not moved:
            break
    columns: list[list[_Node]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in nodes:
        columns[depth[node.name]].append(node)
    rank = {node.name: float(at) for column in columns for at, node in enumerate(column)}
    for _ in range(4):
        for column in columns:
            near = {node.name: _middle(node.name, edges, rank) for node in column}
            column.sort(key=lambda node, near=near: near[node.name])  # type: ignore[misc]
            rank |= {node.name: float(at) for at, node in enumerate(column)}
    return columns


def _without_circles(names: Iterable[str], edges: list[_Edge]) -> list[tuple[str, str]]:
    ends: dict[str, list[str]] = {}
    for edge in edges:
        if edge.start != edge.end:
            ends.setdefault(edge.start, []).append(edge.end)
    forward: list[tuple[str, str]] = []
    done: set[str] = set()
    for root in names:
        if root in done:
            continue
        path, above = [(root, iter(ends.get(root, ())))], {root}
        while path:
            name, rest = path[-1]
            end = next(rest, None)
            if end is None:
                path.pop()
                above.discard(name)
                done.add(name)
            elif end not in above:
                forward.append((name, end))
                if end not in done:
                    path.append((end, iter(ends.get(end, ()))))
                    above.add(end)
    return forward


def _middle(name: str, edges: list[_Edge], rank: dict[str, float]) -> float:
    near = [rank[edge.start] for edge in edges if edge.end == name] + [
        rank[edge.end] for edge in edges if edge.start == name
    ]
    return sum(near) / len(near) if near else rank[name]


def _drawn_node(node: _Node, place: tuple[float, float, float]) -> str:
    left, top, width = place
    fill, stroke, round_ = ("#eaf1fb", "#345", 3) if node.task else ("#f7f4ea", "#987", 14)
    first, second = (escape(line) for line in node.lines)
    weight = ' font-weight="bold"' if node.task else ""
    return (
        f'<g><rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_HEIGHT}" rx="{round_}" fill="{fill}" '
        f'stroke="{stroke}"/><text x="{left + width / 2:.1f}" y="{top + _LINE + 1:.1f}" text-anchor="middle"{weight}>'
        f'{first}</text><text x="{left + width / 2:.1f}" y="{top + 2 * _LINE + 1:.1f}" text-anchor="middle" '
        f'fill="#555">{second}</text></g>'
    )


def _drawn_edge(edge: _Edge, places: dict[str, tuple[float, float, float]]) -> str:
    (x1, y1, w1), (x2, y2, w2) = places[edge.start], places[edge.end]
    middle1, middle2 = y1 + _HEIGHT / 2, y2 + _HEIGHT / 2
    if x2 > x1:  # to the right
        start, end, bend = (x1 + w1, middle1), (x2, middle2), (x2 - x1 - w1) / 2
        curve = f"C{start[0] + bend:.1f},{start[1]:.1f} {end[0] - bend:.1f},{end[1]:.1f}"
        label = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - 5)
    else:  # back, or to a neighbour above or below: around the right side
        start, end, bend = (x1 + w1, middle1 + 6), (x2 + w2, middle2 - 6), max(50.0, x1 + w1 - x2 - w2 + 50)
        curve = f"C{start[0] + 50:.1f},{start[1]:.1f} {end[0] + bend:.1f},{end[1]:.1f}"
        label = (max(start[0], end[0]) + 42, (start[1] + end[1]) / 2 + 4)
    style = ' marker-end="url(#tip)"' if edge.call else ' stroke-dasharray="4 3"'
    anchor = "middle" if x2 > x1 else "start"
    return (
        f'<g><path d="M{start[0]:.1f},{start[1]:.1f} {curve} {end[0]:.1f},{end[1]:.1f}" fill="none" '
        f'stroke="{"#345" if edge.call else "#987"}"{style}/><text x="{label[0]:.1f}" y="{label[1]:.1f}" '
        f'text-anchor="{anchor}" font-size="11" fill="#345">{escape(edge.label)}</text></g>'
    )
