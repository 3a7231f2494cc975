"""Files that others wrote: found, fetched, read within bounds, and told apart by their content."""
