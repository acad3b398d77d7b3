"""A Fusion composition that rebuilds an edit from a hand-over folder, and a reader that checks it.

A composition is a Lua table; `Comp:` stands for the folder it lies in. Warps are Custom tools, not
the Texture tool, which loses the alpha channel. They sample at (s, t) in Fusion's own coordinates:
whether those put a pixel's centre at half a pixel or at its corner is measured inside the
expression, from the fraction of x times the width, so that the result is the same either way.

The arithmetic is that of `edits.nuke_script`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from atlas.coords import Size
from edits.blend_expressions import painted_over
from edits.handover import FRAME, PLATE, RESULT, HandOver, HandOverLayer

_FORMATS = {"exr": "OpenEXRFormat", "png": "PNGFormat", "tif": "TiffFormat"}
_CHANNELS = {"Red": "r", "Green": "g", "Blue": "b", "Alpha": "a"}
FLOAT32 = 4
"""ChangeDepth's number for 32-bit float; Custom tools work at the depth of their first image."""
_LOW = "max(({c}1-1+r3)/max(r3,0.000001),0)"
_HIGH = "min({c}1/max(r3,0.000001),1)"
OWN = f"min(max({{c}}2,{_LOW}),max({_HIGH},{_LOW}))"
"""Image1 the plate, Image2 the atlas as seen, Image3 the share."""
ADDED = "{c}1+a3*({c}2-{c}3)"
"""Image1 the picture so far, Image2 the painted colour, Image3 the own colour; alpha = share."""


def fusion_script(handover: HandOver) -> str:
    """The text of `rebuild.comp`."""
    comp = _Comp(handover)
    comp.loader("Plate", PLATE)
    comp.float32("PlateFloat", "Plate")
    running = "PlateFloat"
    for layer in reversed(handover.layers):
        comp.row = max(comp.rows.values()) + 1
        running = _layer(comp, layer, running)
    saver = (
        "Saver {\n\t\t\tInputs = {\n\t\t\t\tClip = Input {\n\t\t\t\t\tValue = Clip {\n"
        f'\t\t\t\t\t\tFilename = "{_file(RESULT, handover.first)}",\n'
        '\t\t\t\t\t\tFormatID = "PNGFormat",\n\t\t\t\t\t\tLength = 0,\n\t\t\t\t\t\tSaving = 2,\n'
        "\t\t\t\t\t\tTrimIn = 0,\n\t\t\t\t\t\tExtendFirst = 0,\n\t\t\t\t\t\tExtendLast = 0,\n"
        "\t\t\t\t\t\tLoop = 1,\n\t\t\t\t\t\tAspectMode = 0,\n\t\t\t\t\t\tDepth = 0,\n"
        "\t\t\t\t\t\tTimeCode = 0,\n\t\t\t\t\t\tGlobalStart = -2000000000,\n"
        "\t\t\t\t\t\tGlobalEnd = 0\n\t\t\t\t\t},\n\t\t\t\t},\n"
        f"\t\t\t\tInput = {_link(running)},\n\t\t\t}},\n"
    )
    comp.add("Result", saver)
    first, last = handover.first, handover.last
    head = [
        "Composition {",
        f"\tCurrentTime = {first},",
        f"\tRenderRange = {{ {first}, {last} }},",
        f"\tGlobalRange = {{ {first}, {last} }},",
        '\tVersion = "Fusion 16.0 build 40",',
        "\tTools = ordered() {",
    ]
    prefs = (
        "\tPrefs = {\n\t\tComp = {\n\t\t\tFrameFormat = {\n"
        f"\t\t\t\tRate = {handover.fps:.6g},\n\t\t\t\tWidth = {handover.frame.width},\n"
        f"\t\t\t\tHeight = {handover.frame.height},\n\t\t\t}},\n\t\t}},\n\t}},"
    )
    return "\n".join([*head, *comp.tools, "\t},", prefs, "}"]) + "\n"


@dataclass
class _Comp:
    handover: HandOver
    tools: list[str] = field(default_factory=list)
    row: int = 0
    """First row of what is being added."""
    _columns: dict[str, int] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)

    def add(self, name: str, body: str) -> str:
        """Append a tool, given as its class and table up to where ViewInfo goes."""
        before = re.findall(r'SourceOp = "(\w+)"', body)  # a tool stands right of what it takes
        column = 1 + max((self._columns[source] for source in before), default=-1)
        row = max(self.rows.get(column, 0), self.row)
        self._columns[name], self.rows[column] = column, row + 1
        place = (
            f"\t\t\tViewInfo = OperatorInfo {{ Pos = {{ {165 * column}, {66 * row} }} }},\n\t\t}},"
        )
        self.tools.append(f"\t\t{name} = {body}{place}")
        return name

    def loader(self, name: str, file: str) -> str:
        h = self.handover
        moving = FRAME in file
        length = h.last - h.first + 1
        kind = _FORMATS[file.rsplit(".", 1)[1]]
        clip = {
            "ID": '"Clip1"',
            "Filename": f'"{_file(file, h.first)}"',
            "FormatID": f'"{kind}"',
            **({"StartFrame": h.first} if moving else {}),
            "Length": length if moving else 1,
            "Multiframe": "true" if moving else "false",
            "TrimIn": 0,
            "TrimOut": length - 1 if moving else 0,
            "ExtendFirst": 0,
            "ExtendLast": 0 if moving else length - 1,
            "Loop": 0,
            "AspectMode": 0,
            "Depth": 0,
            "TimeCode": 0,
            "GlobalStart": h.first,
            "GlobalEnd": h.last,
        }
        rows = "".join(f"\t\t\t\t\t{key} = {value},\n" for key, value in clip.items())
        body = f"Loader {{\n\t\t\tClips = {{\n\t\t\t\tClip {{\n{rows}\t\t\t\t}}\n\t\t\t}},\n"
        return self.add(name, body + "\t\t\tInputs = {\n\t\t\t\tPostMultiplyByAlpha = Input "
                        "{ Value = 0, },\n\t\t\t},\n")  # fmt: skip

    def float32(self, name: str, source: str) -> str:
        body = (
            "ChangeDepth {\n\t\t\tInputs = {\n"
            f"\t\t\t\tDepth = Input {{ Value = {FLOAT32}, }},\n"
            f"\t\t\t\tInput = {_link(source)},\n\t\t\t}},\n"
        )
        return self.add(name, body)

    def custom(self, name: str, images: tuple[str, ...], rule: str, alpha: str) -> str:
        """A Custom tool; {c} in `rule` stands for the channel."""
        rows = [
            f'\t\t\t\t{word}Expression = Input {{ Value = "{rule.format(c=c)}", }},\n'
            for word, c in _CHANNELS.items()
            if word != "Alpha"
        ]
        rows.append(f'\t\t\t\tAlphaExpression = Input {{ Value = "{alpha}", }},\n')
        rows += [f"\t\t\t\tImage{i} = {_link(n)},\n" for i, n in enumerate(images, 1)]
        return self.add(name, "Custom {\n\t\t\tInputs = {\n" + "".join(rows) + "\t\t\t},\n")

    def warp(self, name: str, stmap: str, picture: str, sizes: tuple[Size, Size, str]) -> str:
        """Sample `picture` where `stmap` says; sizes: of the map, of the picture, border mode."""
        output, source, border = sizes
        at = (
            f"r1+(x*{output.width}-floor(x*{output.width}+0.25)-0.5)/{source.width},"
            f"g1+(y*{output.height}-floor(y*{output.height}+0.25)-0.5)/{source.height}"
        )
        rule = f"get{{c}}2{border}({at})"
        return self.custom(name, (stmap, picture), rule, rule.format(c="a"))


def _link(source: str) -> str:
    return f'Input {{ SourceOp = "{source}", Source = "Output", }}'


def _file(pattern: str, frame: int) -> str:
    return "Comp:/" + (pattern % frame if FRAME in pattern else pattern)


def _layer(comp: _Comp, layer: HandOverLayer, running: str) -> str:
    node, frame = layer.node, comp.handover.frame
    stmap = comp.loader(f"STMap_{node}", layer.stmap)
    share = comp.float32(f"Share_{node}", comp.loader(f"Matte_{node}", layer.matte))
    shading = comp.loader(f"Shading_{node}", layer.shading) if layer.has_shading else None
    images, rule = ("PlateFloat", share), "{c}1"
    if layer.has_atlas:
        atlas = comp.float32(f"AtlasFloat_{node}", comp.loader(f"Atlas_{node}", layer.atlas_file))
        atlas = comp.warp(f"AtlasWarp_{node}", stmap, atlas, (frame, layer.canvas, "d"))
        if shading is not None:
            atlas = comp.custom(f"AtlasShaded_{node}", (atlas, shading), "{c}1*{c}2", "1")
        images, rule = ("PlateFloat", atlas, share), OWN
    own = painted = comp.custom(f"Own_{node}", images, rule, f"r{len(images)}")
    for i, paint in enumerate(layer.paints):
        name = ("" if i == 0 else str(i + 1)) + f"_{node}"
        picture = comp.loader(f"Paint{name}", layer.paint_files[i])
        picture = comp.float32(f"PaintFloat{name}", picture)
        picture = comp.custom(f"PaintPremult{name}", (picture,), "{c}1*a1", "a1")
        picture = comp.warp(f"PaintWarp{name}", stmap, picture, (frame, paint.size, "b"))
        if shading is not None:
            pair = (picture, shading)
            picture = comp.custom(f"PaintShaded{name}", pair, "min({c}1*{c}2,a1)", "a1")
        rule = painted_over(paint.blend, "{c}1", "{c}2", "a2")
        painted = comp.custom(f"Painted{name}", (painted, picture), rule, "a1")
    inverse = comp.loader(f"Inverse_{node}", layer.inverse)
    seen = comp.warp(f"Seen_{node}", inverse, "PlateFloat", (layer.canvas, frame, "d"))
    comp.custom(f"Unwrapped_{node}", (seen, inverse), "{c}1*a2", "a2")
    return comp.custom(f"With_{node}", (running, painted, own), ADDED, "a1")


@dataclass(frozen=True)
class FusionTool:
    """A tool as read from a composition: its class, its links (input name -> tool) and table."""

    kind: str
    links: dict[str, str]
    table: dict[str, Any]


_TOKEN = re.compile(
    r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<number>-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)'
    r"|(?P<word>[A-Za-z_]\w*(?:\(\))?)|(?P<mark>[{}=,\[\]]))"
)


def read_fusion_script(text: str) -> dict[str, FusionTool]:
    """Tools by name, in order, of a composition such as `fusion_script` writes.

    Raises `ValueError` where the table is not well formed, or links a tool that is not there.
    """
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if not match or not match.lastgroup:
            raise ValueError(f"character {at}: {text[at : at + 20]!r} is no Lua table")
        tokens.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    tokens.append(("end", ""))
    comp, rest = _read_value(tokens, 0)
    if tokens[rest][0] != "end":
        raise ValueError("the composition goes on after its end")
    tools = {}
    for name, table in comp["Tools"].items():
        inputs = table.get("Inputs", {})
        links = {k: v["SourceOp"] for k, v in inputs.items() if "SourceOp" in v}
        tools[name] = FusionTool(table["class"], links, table)
    for name, tool in tools.items():
        for key, source in tool.links.items():
            if source not in tools:
                raise ValueError(f"{name}: {key} is linked to {source}, which is not there")
    return tools


def _read_value(tokens: list[tuple[str, str]], at: int) -> tuple[Any, int]:
    """A value and where it ends; tables become dicts, what is before their brace goes to class."""
    kind, word = tokens[at]
    if kind == "text":
        return word[1:-1], at + 1
    if kind == "number":
        return float(word), at + 1
    if kind == "word" and tokens[at + 1] != ("mark", "{"):
        return word, at + 1
    table: dict[str, Any] = {}
    if kind == "word":
        table["class"] = word
        at += 1
    if tokens[at] != ("mark", "{"):
        raise ValueError(f"found {tokens[at][1]!r}, wanted a value")
    at += 1
    while tokens[at] != ("mark", "}"):
        key: str = str(len(table))
        if tokens[at][0] == "word" and tokens[at + 1] == ("mark", "="):
            key, at = tokens[at][1], at + 2
        if key in table:
            raise ValueError(f"{key} comes twice")
        table[key], at = _read_value(tokens, at)
        if tokens[at] == ("mark", ","):
            at += 1
        elif tokens[at] != ("mark", "}"):
            raise ValueError(f"found {tokens[at][1]!r}, wanted , or }}")
    if table.get("class") == "ordered()":
        del table["class"]
    return table, at + 1
