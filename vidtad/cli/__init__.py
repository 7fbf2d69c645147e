"""The command line: parse, call one function, print. Errors become one sentence and an exit code here."""

from vidtad.cli.app import app, main

__all__ = ["app", "main"]
