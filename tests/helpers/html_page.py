"""Reads a page back as a browser would, to see which elements and attributes it is made of."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

_VOID = {"meta", "link", "input", "img", "br", "wbr"}


class Page(HTMLParser):
    """Elements with their attributes, text, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def shape(self) -> Counter[tuple[str, tuple[str, ...]]]:
        """How often each element with the same attribute names occurs."""
        return Counter((tag, tuple(sorted(attributes))) for tag, attributes in self.elements)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            told for name, told in self.elements if name == tag and all(told.get(key) == value for key, value in wanted.items())
        ]
