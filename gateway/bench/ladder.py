"""A ladder diagram of IKE exchanges as one self-contained SVG: who said what to whom, when.

Time runs down; one arrow a message, its exchange above the line and its payloads below. Bursts of ESP packets
appear as a band between the messages they lie between.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH = 980
_LEFT, _RIGHT = 190, 790
_TOP = 110
_ARROW_STEP = 52
_BAND_STEP = 36
_STYLE = """
  text { font: 13px sans-serif; fill: #1d2733 }
  .title { font-size: 18px; font-weight: bold }
  .party { font-size: 14px; font-weight: bold }
  .time { font-size: 11px; fill: #6b7684; text-anchor: end }
  .exchange { text-anchor: middle; font-weight: bold }
  .payloads { text-anchor: middle; font: 11px monospace; fill: #46525f }
  .note { text-anchor: middle; font-size: 12px; fill: #2f6f4f }
  .life { stroke: #b3bcc7; stroke-width: 2; stroke-dasharray: 3 4 }
  .arrow { stroke-width: 1.6 }
  .band { fill: #e3f2ea; stroke: #8fc3a6 }
"""
_COLOURS = {
    "IKE_SA_INIT": "#6b4fbb",
    "IKE_AUTH": "#1f5fae",
    "CREATE_CHILD_SA": "#b5651d",
    "INFORMATIONAL": "#58616b",
}
_DEFAULT_COLOUR = "#58616b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One arrow."""

    at_s: float
    """Seconds since the start of the diagram."""
    rightward: bool
    exchange: str
    is_request: bool
    message_id: int
    payloads: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """ESP packets between two messages, told as one band."""

    at_s: float
    until_s: float
    packets_right: int
    packets_left: int


Rung = Message | Burst


def draw(rungs: Sequence[Rung], *, title: str, left: str, right: str) -> str:
    """Return the SVG document; names and payloads are escaped, since a peer chose some of them."""
    y, body = _TOP, list[str]()
    for rung in rungs:
        if isinstance(rung, Message):
            y += _ARROW_STEP
            body.append(_arrow(rung, y))
        else:
            y += _BAND_STEP
            body.append(_band(rung, y))
            y += 8
    height = y + 50
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}">',
        f"<style>{_STYLE}</style>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text class="title" x="24" y="34">{escape(title)}</text>',
    ]
    for x, name in ((_LEFT, left), (_RIGHT, right)):
        head.append(f'<text class="party" text-anchor="middle" x="{x}" y="78">{escape(name)}</text>')
        head.append(f'<line class="life" x1="{x}" y1="90" x2="{x}" y2="{height - 20}"/>')
    return "\n".join([*head, *body, "</svg>", ""])


def _arrow(message: Message, y: int) -> str:
    start, end = (_LEFT, _RIGHT) if message.rightward else (_RIGHT, _LEFT)
    back = -9 if message.rightward else 9
    colour = _COLOURS.get(message.exchange, _DEFAULT_COLOUR)
    kind = "request" if message.is_request else "response"
    middle = (_LEFT + _RIGHT) // 2
    return "\n".join(
        (
            f'<text class="time" x="{_LEFT - 24}" y="{y + 4}">{message.at_s:.3f} s</text>',
            f'<text class="exchange" style="fill: {colour}" x="{middle}" y="{y - 6}">'
            f"{escape(message.exchange)} {kind} {message.message_id}</text>",
            f'<line class="arrow" stroke="{colour}" x1="{start}" y1="{y}" x2="{end}" y2="{y}"/>',
            f'<path fill="{colour}" d="M {end} {y} l {back} -5 l 0 10 z"/>',
            f'<text class="payloads" x="{middle}" y="{y + 15}">{escape(_shortened(message.payloads))}</text>',
        )
    )


def _band(burst: Burst, y: int) -> str:
    middle = (_LEFT + _RIGHT) // 2
    return "\n".join(
        (
            f'<text class="time" x="{_LEFT - 24}" y="{y + 4}">{burst.at_s:.3f} s</text>',
            f'<rect class="band" x="{_LEFT + 20}" y="{y - 11}" width="{_RIGHT - _LEFT - 40}" '
            'height="22" rx="6"/>',
            f'<text class="note" x="{middle}" y="{y + 4}">ESP: {burst.packets_right} packets &#8594;  '
            f"&#8592; {burst.packets_left} packets, {burst.until_s - burst.at_s:.1f} s</text>",
        )
    )


def _shortened(text: str, limit: int = 84) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
