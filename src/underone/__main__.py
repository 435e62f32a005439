"""`underone`, and `python -m underone`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C is quiet also in the seconds that loading it takes."""
    try:
        from underone.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
