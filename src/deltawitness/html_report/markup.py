"""HTML elements whose texts are always escaped."""

from __future__ import annotations

import html
import re

__all__ = ["SHOWN_CHARACTERS", "Markup", "element", "isolated", "join", "visible"]

SHOWN_CHARACTERS = 300
"""Maximum number of characters of a name or message that the report shows."""

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, characters that change the direction of text, and lone surrogates."""

_VOID = {"meta", "input", "br", "rect", "line", "path", "polyline", "circle", "use"}


class Markup(str):
    """Text that is HTML already; `element` does not escape it."""

    __slots__ = ()


def visible(value: object, limit: int | None = SHOWN_CHARACTERS) -> str:
    r"""Return a value as text in which each control character is visible, such as `\u202e`.

    Args:
        value: the value; None is an empty text.
        limit: maximum number of characters; the rest is left out, and the text says how long it was.

    >>> visible("a\x00b"), visible("x" * 9, 4)
    ('a\\u0000b', 'xxxx… (9 characters)')
    """
    text = "" if value is None else str(value)
    length = len(text)
    if limit is not None and length > limit:
        text = text[:limit]
    if not (text.isascii() and text.isprintable()):  # most are both
        text = _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return f"{text}… ({length:,} characters)" if limit is not None and length > limit else text


def element(name: str, /, *children: str, **attributes: object) -> Markup:
    """Return an element of HTML or SVG.

    Texts and values of attributes are escaped, except those that are `Markup`. An underscore at the end of the
    name of an attribute is left out; others are hyphens. An attribute with the value None or False is left out.

    Args:
        name: name of the element.
        *children: texts and elements in it.
        **attributes: its attributes.

    >>> print(element("p", "1 < 2", element("b", "&"), class_="x"))
    <p class="x">1 &lt; 2<b>&amp;</b></p>
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{html.escape(visible(value, None))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID and not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def isolated(value: object, limit: int | None = SHOWN_CHARACTERS) -> Markup:
    """Return a value from outside, whose direction of text does not change that of its surroundings."""
    return element("bdi", visible(value, limit))


def join(*parts: str) -> Markup:
    """Return parts one after the other; texts are escaped, `Markup` is not."""
    return Markup(
        "".join(
            part if isinstance(part, Markup) else html.escape(visible(part, None)) for part in parts
        )
    )
