"""Names of videos, classes and files: when two are the same, how one is shown, and whether it can be a file's."""

import unicodedata


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC), in which names are compared.

    macOS writes an accented letter of a file name as two characters, annotation tools as one; they look the same.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))})
LONGEST = 200
"""Bytes of a name that files are named by; file systems take 255, and suffixes are added."""


def is_device(name: str) -> bool:
    """Whether Windows takes a file of this name, whatever its suffix, for a device."""
    return name.split(".")[0].strip().lower() in _DEVICES


def unfit(name: str) -> str:
    """Why no file can be named by this on every system, in words; "" where one can."""
    if not name.strip() or name.strip(". ") == "":
        return "it is empty or made of dots"
    if any(letter in '/\\:*?"<>|' or ord(letter) < 32 for letter in name):
        return "it holds a character that file names cannot have"
    if is_device(name):
        return "Windows takes it for a device"
    if len(name.encode(errors="surrogatepass")) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    return ""
