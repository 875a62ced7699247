"""Survey files: what the telescope gives, and a stand-in for it."""
