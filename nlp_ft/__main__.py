"""`python -m nlp_ft`: the same as the command `nlp-ft`."""

from nlp_ft.cli import main

if __name__ == "__main__":
    main()
