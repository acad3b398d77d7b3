"""A Nuke script that rebuilds an edit from a hand-over folder, and a reader that checks scripts.

A script is a list of nodes that work on a stack: a node takes its inputs from the top (input 0 is
the topmost) and leaves itself there; `set NAME [stack 0]` names what lies on top, `push $NAME`
puts it there again. Colours stay display-encoded (`raw true`): that is where paint programs blend.

Per layer, as `edits.composite` has it, with S the share of the pixel that shows the layer:

    own   = the atlas's colour there, kept where (plate - S own) is in range
    plate + sum over layers of S (own, painted over - own)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from atlas.coords import Size
from edits.blend_expressions import painted_over
from edits.handover import PLATE, RESULT, HandOver, HandOverLayer

COLUMN, ROW = 130, 90
_LOW = "max((B{c}-1+Ba)/max(Ba,0.000001),0)"
_HIGH = "min(B{c}/max(Ba,0.000001),1)"
OWN = f"min(max(A{{c}},{_LOW}),max({_HIGH},{_LOW}))"
"""The layer's own colour (`edits.unmix.own_color`): A is the atlas, B the plate with alpha = S."""
DELTA = "Ba*(A{c}-B{c})"
"""What the paint changes: A is the painted colour, B the own colour with alpha = S."""
SHADED_PAINT = "min(A{c}*B{c},Ba)"
SHADED_ATLAS = "A{c}*B{c}"


def nuke_script(handover: HandOver) -> str:
    """The text of `rebuild.nk`; files are found beside the script."""
    script = _Script()
    script.lines.append("version 13.0 v1")
    script.node("Root", "rebuild", [], (0, 0), _root(handover))
    plate = script.read("Plate", PLATE, (3, 2), _sequence(handover, handover.frame))
    running = plate
    for number, layer in enumerate(reversed(handover.layers), 1):
        running = _layer(script, handover, layer, running, number)
    column = (len(handover.layers) + 1) * 7
    out = {"file": RESULT, "file_type": "png", "datatype": "{16 bit}", "raw": "true"}
    out["create_directories"] = "true"
    script.node("Write", "Result", [running], (column, 8), out)
    view = {"frame": str(handover.first), "viewerProcess": "None"}
    script.node("Viewer", "Viewer1", [running], (column, 9), view)
    return "\n".join(script.lines) + "\n"


@dataclass
class _Script:
    lines: list[str] = field(default_factory=list)

    def node(
        self,
        kind: str,
        name: str,
        inputs: Sequence[str],
        place: tuple[int, int],
        knobs: dict[str, str],
    ) -> str:
        """Add a node; `inputs` are names, input 0 first. Returns its name."""
        self.lines += [f"push $N{source}" for source in reversed(inputs)]
        rows = [f" inputs {len(inputs)}"] if len(inputs) != 1 else []
        rows += [f" {key} {value}" for key, value in knobs.items()]
        rows.append(f" name {name}")
        if kind != "Root":
            rows += [f" xpos {place[0] * COLUMN}", f" ypos {place[1] * ROW}"]
        self.lines += [f"{kind} {{", *rows, "}"]
        if kind not in ("Root", "BackdropNode", "Write", "Viewer"):
            self.lines.append(f"set N{name} [stack 0]")
        return name

    def read(self, name: str, file: str, place: tuple[int, int], knobs: dict[str, str]) -> str:
        kind = {"exr": "exr", "png": "png", "tif": "tiff"}[file.rsplit(".", 1)[1]]
        quoted = "{" + file + "}" if " " in file else file
        return self.node("Read", name, [], place, {"file_type": kind, "file": quoted, **knobs})


def _format(size: Size) -> str:
    return f'"{size.width} {size.height} 0 0 {size.width} {size.height} 1 "'


def _root(handover: HandOver) -> dict[str, str]:
    return {
        "project_directory": r'"\[python \{nuke.script_directory()\}]"',
        "frame": str(handover.first),
        "first_frame": str(handover.first),
        "last_frame": str(handover.last),
        "lock_range": "true",
        "fps": f"{handover.fps:.6g}",
        "format": _format(handover.frame),
    }


def _sequence(handover: HandOver, size: Size) -> dict[str, str]:
    first, last = str(handover.first), str(handover.last)
    span = {"first": first, "last": last, "origfirst": first, "origlast": last}
    return {"format": _format(size), **span, "origset": "true", "raw": "true"}


def _still(size: Size) -> dict[str, str]:
    return {"format": _format(size), "raw": "true"}


def _merge(
    script: _Script, name: str, inputs: tuple[str, str], place: tuple[int, int], rule: str, a: str
) -> str:
    """A MergeExpression; `inputs` are B and A, `rule` has {c} for the channel, `a` is alpha's."""
    knobs = {f"expr{i}": '"' + rule.format(c=c) + '"' for i, c in enumerate("rgb")}
    return script.node("MergeExpression", name, inputs, place, {**knobs, "expr3": a})


def _layer(
    script: _Script, handover: HandOver, layer: HandOverLayer, running: str, number: int
) -> str:
    """One layer's nodes; the name of the node that holds the picture with its paint."""
    node, x = layer.node, number * 7
    title = {"label": f'"{layer.name}"', "bdwidth": str(7 * COLUMN - 40), "bdheight": str(10 * ROW)}
    script.node("BackdropNode", f"Layer_{node}", [], (x - 1, -1), title)
    frames, canvas = _sequence(handover, handover.frame), _sequence(handover, layer.canvas)
    stmap = script.read(f"STMap_{node}", layer.stmap, (x + 2, 0), frames)
    matte = script.read(f"Matte_{node}", layer.matte, (x + 3, 0), frames)
    copy = {"from0": "rgba.red", "to0": "rgba.alpha"}
    own = script.node("Copy", f"PlateShare_{node}", ["Plate", matte], (x + 3, 4), copy)
    shading = None
    if layer.has_shading:
        shading = script.read(f"Shading_{node}", layer.shading, (x + 4, 0), frames)
    if layer.has_atlas:
        still = _still(layer.canvas)
        atlas = script.read(f"Atlas_{node}", layer.atlas_file, (x + 1, 0), still)
        atlas = script.node("STMap", f"AtlasWarp_{node}", [atlas, stmap], (x + 1, 3), _WARP)
        if shading is not None:
            pair = (atlas, shading)
            atlas = _merge(script, f"AtlasShaded_{node}", pair, (x + 1, 4), SHADED_ATLAS, "1")
        own = _merge(script, f"Own_{node}", (own, atlas), (x + 2, 5), OWN, "Ba")
    painted = own
    for i, paint in enumerate(layer.paints):
        warped = _warped_paint(script, layer, i, (stmap, shading), (x, 2 * i))
        rule = painted_over(paint.blend, "B{c}", "A{c}", "Aa")
        name = f"Painted{_number(i)}_{node}"
        painted = _merge(script, name, (painted, warped), (x + 2, 6 + i), rule, "Ba")
    delta = _merge(script, f"Change_{node}", (own, painted), (x + 1, 7), DELTA, "0")
    inverse = script.read(f"Inverse_{node}", layer.inverse, (x + 5, 0), canvas)
    seen = script.node("STMap", f"Seen_{node}", ["Plate", inverse], (x + 5, 3), _WARP)
    seen = script.node("Copy", f"SeenAlpha_{node}", [seen, inverse], (x + 5, 4), dict(_ALPHA))
    script.node("Premult", f"Unwrapped_{node}", [seen], (x + 5, 5), {})
    plus = {"operation": "plus"}
    return script.node("Merge2", f"With_{node}", [running, delta], (x + 1, 8), plus)


def _warped_paint(
    script: _Script,
    layer: HandOverLayer,
    index: int,
    maps: tuple[str, str | None],
    place: tuple[int, int],
) -> str:
    """Nodes of one paint file, seen in the frame, premultiplied; maps: ST map, shading."""
    (x, y), node = place, f"{_number(index)}_{layer.node}"
    stmap, shading = maps
    still = _still(layer.paints[index].size)
    paint = script.read(f"Paint{node}", layer.paint_files[index], (x, y), still)
    paint = script.node("Premult", f"PaintPremult{node}", [paint], (x, y + 1), {})
    paint = script.node("BlackOutside", f"PaintEdge{node}", [paint], (x, y + 2), {})
    paint = script.node("STMap", f"PaintWarp{node}", [paint, stmap], (x, y + 3), _WARP)
    if shading is None:
        return paint
    return _merge(script, f"PaintShaded{node}", (paint, shading), (x, y + 4), SHADED_PAINT, "Ba")


def _number(index: int) -> str:
    """What goes into the names of a layer's second and later paint."""
    return "" if index == 0 else str(index + 1)


_ALPHA = {"from0": "rgba.alpha", "to0": "rgba.alpha"}
_WARP = {"channels": "rgba", "uv": "rgb"}


@dataclass(frozen=True)
class NukeNode:
    """A node as read from a script: its class, its inputs' names (input 0 first), its knobs."""

    kind: str
    inputs: tuple[str, ...]
    knobs: dict[str, str]


def read_nuke_script(text: str) -> dict[str, NukeNode]:
    """Nodes by name, in order, of a script such as `nuke_script` writes.

    Raises `ValueError` for a script that Nuke could not connect: an unknown line, an unclosed
    node, an input that is not there, a name that comes twice.
    """
    nodes: dict[str, NukeNode] = {}
    stack: list[str] = []
    names: dict[str, str] = {}
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if line.startswith("version ") or not line.strip():
            continue
        if match := re.fullmatch(r"set (\w+) \[stack 0\]", line):
            names[match[1]] = stack[-1]
        elif match := re.fullmatch(r"push \$(\w+)", line):
            if match[1] not in names:
                raise ValueError(f"line {number}: push ${match[1]} before it was set")
            stack.append(names[match[1]])
        elif match := re.fullmatch(r"(\w+) \{", line):
            knobs = _read_knobs(lines, number)
            name, count = knobs.pop("name", ""), int(knobs.pop("inputs", "1"))
            if not name or name in nodes:
                raise ValueError(f"line {number}: the name {name!r} is missing or comes twice")
            if count > len(stack):
                raise ValueError(f"line {number}: {name} wants {count} inputs, has {len(stack)}")
            inputs = tuple(stack.pop() for _ in range(count))
            nodes[name] = NukeNode(match[1], inputs, knobs)
            if match[1] not in ("Root", "BackdropNode"):
                stack.append(name)
        else:
            raise ValueError(f"line {number}: {line!r} is no node, set or push")
    return nodes


def _read_knobs(lines, start: int) -> dict[str, str]:
    knobs = {}
    for number, line in lines:
        if line == "}":
            return knobs
        match = re.fullmatch(r' (\w+) ("(?:[^"\\]|\\.)*"|\{[^{}]*\}|\S+)', line)
        if not match:
            raise ValueError(f"line {number}: {line!r} is no knob and value")
        value = match[2]
        knobs[match[1]] = value[1:-1] if value[0] in '"{' else value
    raise ValueError(f"line {start}: the node is not closed")
