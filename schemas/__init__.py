"""Names, types, units and descriptions of every array and column, as JSON."""
