"""``python -m groundwork`` is the ``groundwork`` command."""

from groundwork.cli import main

if __name__ == "__main__":
    main()
