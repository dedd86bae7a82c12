"""`python -m deltawitness`."""

from deltawitness.cli import main

if __name__ == "__main__":
    main()
