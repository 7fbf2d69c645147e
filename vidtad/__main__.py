"""`python -m vidtad`."""

from vidtad.cli import main

main()
