"""``python -m coterie.cli``, for launchers that start modules."""

from coterie.cli import main

if __name__ == "__main__":
    main()
