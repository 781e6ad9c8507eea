"""`python -m bittern` is the `bittern` command."""

from bittern.cli import main

if __name__ == "__main__":
    main()
