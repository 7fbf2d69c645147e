"""Names of videos, classes and files: when two are the same, how one is shown, and whether it can be a file's."""

import unicodedata


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC), in which names are compared.

    macOS writes an accented letter of a file name as two characters, annotation tools as one; they look the same.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)
