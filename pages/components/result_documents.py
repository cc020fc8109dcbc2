"""The results that are shipped with the documentation: documents, their sections and verdicts, read from Markdown."""

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "results"
IMAGE = re.compile(r"^!\[([^\]]*)\]\(([^)\s]+)\)$")
_INLINE_IMAGE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
_HEADING = re.compile(r"^(#{1,6}) +(.+?)\s*#*$")
_VERDICT = re.compile(r"\*\*Verdict[:.]?\s*(.*?)\*\*", re.DOTALL)
_PAPER = re.compile(r"\*\*The paper\*\*(?: \(([^)]*)\))?(:?)\s*(.*)", re.DOTALL)
_END = re.compile(r"(?<!\bSec)(?<!\bFig)(?<!\bApp)(?<!\bal)[.!?](?=\s+[A-Z0-9*`]|$)")  # of a sentence


@dataclass(frozen=True)
class Image:
    """A figure of a document, as written there."""

    alt: str
    path: str


Block = str | Image  # Markdown, or a figure on a line of its own


@dataclass(frozen=True)
class Verdict:
    """What the paper says, or what was asked, and what came out."""

    statement: str  # Markdown, on one line
    verdict: str


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it."""

    title: str
    level: int
    anchor: str
    blocks: tuple[Block, ...]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Document:
    """One file of results."""

    name: str
    title: str
    line: str  # its first sentence
    sections: tuple[Section, ...]


def documents() -> tuple[dict[str, Document], list[str]]:
    """Return the documents by name, and the names of files that cannot be read."""
    found, broken = {}, []
    for file in sorted(FOLDER.glob("*.md")):
        try:
            found[file.stem] = read(file.stem, file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # no UTF-8
            broken.append(file.name)
    return found, broken


def read(name: str, text: str) -> Document:
    """Take a document apart; one without a title is called by its name."""
    sections: list[Section] = []
    title, level, lines = name, 1, list[str]()
    for line, heading in _lines(text):
        if heading is None:
            lines.append(line)
            continue
        if title != name or any(line.strip() for line in lines):  # something precedes the heading
            _close(sections, title, level, lines)
        title, level, lines = heading.group(2), len(heading.group(1)), []
    _close(sections, title, level, lines)
    first = next((block for section in sections for block in section.blocks if isinstance(block, str)), "")
    line = _sentence(_one_line(first.partition("\n\n")[0]))
    return Document(name, sections[0].title, line, tuple(sections))


def figure_file(path: str) -> Path | None:
    """Return the file of a figure; None for one that is not there or lies outside the results."""
    file = (FOLDER / path).resolve()
    return file if file.is_relative_to(FOLDER.resolve()) and file.is_file() else None


def _lines(text: str) -> list[tuple[str, re.Match[str] | None]]:
    """Return lines with the match of those that are headings: outside of code."""
    found, code = [], False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            code = not code
        found.append((line, None if code else _HEADING.match(line)))
    return found


def _close(sections: list[Section], title: str, level: int, lines: list[str]) -> None:
    """Add a section of these lines."""
    blocks, text = list[Block](), list[str]()
    for line in [*lines, None]:
        image = None if line is None else IMAGE.match(line.strip())
        if line is not None and image is None:
            text.append(line)
            continue
        if (joined := "\n".join(text).strip("\n")).strip():
            blocks.append(_INLINE_IMAGE.sub(r"*(picture: \1)*", joined))  # nothing is fetched from elsewhere
        if image is not None:
            blocks.append(Image(image.group(1), image.group(2)))
        text = []
    taken = {section.anchor for section in sections}
    anchor = own = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
    while anchor in taken:
        anchor = f"{own}-{len(taken)}"
    verdicts = [
        verdict
        for block in blocks
        if isinstance(block, str)
        for paragraph in re.split(r"\n\s*\n", block)
        if (verdict := _verdict(paragraph, title))
    ]
    sections.append(Section(title, level, anchor, tuple(blocks), tuple(verdicts)))


def _verdict(paragraph: str, title: str) -> Verdict | None:
    """Return a paragraph's verdict on what it says of the paper, or else on the section's title."""
    found = _VERDICT.search(paragraph)
    if found is None:
        return None
    said, rest = _one_line(found.group(1)), _one_line(paragraph[found.end() :])
    if not said or said[-1] not in ".!?":  # the sentence goes on behind the bold words
        said = f"{said}{'' if rest[:1] in ',.;:' else ' '}{_sentence(rest)}"
    paper = _PAPER.search(paragraph[: found.start()])
    statement = title
    if paper is not None:
        place, colon, claim = paper.groups()
        statement = f"The paper{colon} {_one_line(claim).rstrip('. ')}{f' ({place})' if place else ''}"
    return Verdict(statement, said.strip().rstrip("."))


def _sentence(text: str) -> str:
    found = _END.search(text)
    return text[: found.end()] if found else text


def _one_line(text: str) -> str:
    return " ".join(text.split())
