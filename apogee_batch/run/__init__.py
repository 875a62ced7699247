"""The order of work, where it runs, and what is done."""
