"""`underone`, and `python -m underone`."""

import sys


def main() -> None:
    """Run the command line. Loading it takes seconds, and Ctrl-C is quiet in these too."""
    try:
        from underone.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
