"""What `vidtad models` prints: tables by task, and the card of one model."""

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from vidtad.cli.common import print_whole, say, visible

COLUMNS = ("name", "classes", "size", "licence", "get", "hash", "problem")
LEGEND = {
    "fetch": "get fetch: `vidtad models fetch NAME` downloads it",
    "by hand": "get by hand: `vidtad models show NAME` says how; then `vidtad models add FILE --as NAME`",
}
HASHES = {
    "published": "checked against the hash that its project publishes",
    "first use": "its project publishes no hash: pinned at first use, so that the file must stay what it was then",
}
TITLES = {
    "how_to_get": "how to get it",
    "sha256": "SHA-256",
    "pinned_sha256": "SHA-256 at first use",
    "md5": "MD5",
    "url": "address",
    "path": "file",
    "source": "listed by",
    "head_config": "network of the head",
    "class_names": "classes",
}
FIRST = ("task", "head", "network", "extractor", "classes", "class_names", "size", "licence", "source", "url", "sha256")
"""What a card begins with, in this order."""
UNSAID = ("name", "kind", "cached", "builtin", "fetchable", "hash", "demonstration", "published", "id")
"""What the first lines of a card say in words, or another part of it."""
INDENT = 22


def show_list(rows: Sequence[Mapping[str, Any]]) -> None:
    """One table a task, without columns that are empty in it, and what the words in them mean."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [(row["task"] or "unknown task", _cells(row)) for row in rows]
    for task in dict.fromkeys(task for task, _ in cells):
        inside = [line for other, line in cells if other == task]
        used = [heading for heading in COLUMNS if any(line[heading] for line in inside)]
        count = f"{len(inside)} model{'s' if len(inside) > 1 else ''}"
        table = Table(box=box.SIMPLE, title=Text(f"{task}: {count}"), title_justify="left")
        for heading in used:
            justify = "right" if heading in ("classes", "size") else "left"
            table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for line in inside:
            table.add_row(*(Text(line[heading]) for heading in used))
        print_whole(table)
    for word, sentence in LEGEND.items():
        if any(line["get"] == word for _, line in cells):
            say(sentence)
    for word, sentence in HASHES.items():
        if any(line["hash"] == word for _, line in cells):
            say(f"hash {word}: {sentence}")


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    shown = {heading: visible(row.get(heading) or "") for heading in COLUMNS}
    return shown | {"size": "" if row["size"] is None else f"{row['size'] / 1e6:.1f} MB"}


def show_card(document: Mapping[str, Any]) -> None:
    """One model for people: what and where it is, then its facts, one a line; nested ones below their heading."""
    published = document.get("published") or (document if document["kind"] == "checkpoint" else {})
    say(document["name"])
    say(f"  {_where(document)}")
    if published:
        say(f"  {HASHES[published['hash']]}")
    _facts(document, 2)
    if document.get("published"):
        say("  as published")
        _facts(document["published"], 4)


def _where(document: Mapping[str, Any]) -> str:
    what = "detector bundle" if document["kind"] == "bundle" else "published checkpoint"
    if document.get("builtin"):
        trained = ", a demonstration that knows generated classes only" if document.get("demonstration") else ""
        return f"{what}, built in{trained}"
    if document["cached"]:
        return f"{what}, on this machine"
    return f"{what}, not on this machine; {'can be fetched' if document['fetchable'] else 'to be got by hand'}"


def _facts(document: Mapping[str, Any], indent: int) -> None:
    keys = [*(key for key in FIRST if key in document), *(key for key in document if key not in FIRST)]
    facts = {key: document[key] for key in keys if key not in UNSAID and document[key] not in (None, "", [], {})}
    if isinstance(facts.get("classes"), int) and "class_names" in facts:
        del facts["classes"]
    for key, value in facts.items():
        title = TITLES.get(key, str(key).replace("_", " "))
        if key == "sha256" and len(str(value)) < 64:
            title = "SHA-256 begins with"
        if isinstance(value, Mapping):
            say(f"{' ' * indent}{title}")
            _facts({str(inner): fact for inner, fact in value.items()}, indent + 2)
        else:
            _fact(title, f"{value / 1e6:.1f} MB" if key == "size" and indent == 2 else _plain(value), indent)


def _fact(title: str, text: str, indent: int) -> None:
    """A line, or several of them where the text is long; addresses, hashes and paths are never broken."""
    start = f"{' ' * indent}{title:<{max(1, INDENT - indent)}} "
    width = max(60, min(shutil.get_terminal_size((120, 24)).columns, 120))
    lines = textwrap.wrap(
        visible(text), max(20, width - len(start)), break_long_words=False, break_on_hyphens=False
    ) or [""]
    say(start + lines[0])
    for line in lines[1:]:
        say(" " * len(start) + line)


def _plain(value: Any) -> str:
    """Lists and documents inside them on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        number = f"{len(value)}: " if len(value) > 5 and all(isinstance(one, str) for one in value) else ""
        return number + ", ".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
