"""The blend modes of `edits.blend` as arithmetic with min, max and sqrt alone.

Compositing programs differ in how they write a choice between two formulas, and agree on these.
"""

from __future__ import annotations

_POLYNOMIAL = "((16*{b}-12)*{b}+4)*{b}"
BLENDS = {
    "normal": "{s}",
    "multiply": "{b}*{s}",
    "screen": "{b}+{s}-{b}*{s}",
    "overlay": "{s}*min(2*{b},1)+max(2*{b}-1,0)*(1-{s})",
    # between a backdrop of 0.19 and 0.25 the smaller of the two is off by up to 0.0006
    "soft light": "{b}-max(1-2*{s},0)*{b}*(1-{b})"
    f"+max(2*{{s}}-1,0)*(min({_POLYNOMIAL},sqrt(max({{b}},0)))-{{b}})",
    "add": "min({b}+{s},1)",
}
"""B(backdrop, source) of straight colours {b} and {s}."""


def painted_over(blend: str, backdrop: str, colour: str, alpha: str) -> str:
    """Expression of an opaque `backdrop` under paint, given premultiplied (`edits.blend`)."""
    if blend == "normal":
        return f"{colour}+(1-{alpha})*{backdrop}"
    source = f"min({colour}/max({alpha},0.000001),1)"
    return f"{backdrop}+{alpha}*({BLENDS[blend].format(b=backdrop, s=source)}-{backdrop})"
