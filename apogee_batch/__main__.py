"""Run the command line as `python -m apogee_batch`."""

from apogee_batch.cli import main

if __name__ == "__main__":
    main()
