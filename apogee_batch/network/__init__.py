"""The CNN and how it learns."""
