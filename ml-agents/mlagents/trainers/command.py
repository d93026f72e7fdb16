"""The command ``mlagents-learn``: its arguments first, and only then what it takes a second to import."""

from __future__ import annotations

from mlagents.trainers.cli_options import create_parser, get_version_string


def main() -> None:
    """Answer ``--help``, ``--version`` and unknown flags at once; else run `mlagents.trainers.learn`."""
    create_parser(get_version_string).parse_args()
    from mlagents.trainers import learn  # with PyTorch

    learn.main()
