"""``python -m oocload`` is the command ``oocload``."""

from oocload.cli import main

main(prog_name="oocload")
