"""Which rows, in which order: integers in, integers out. Opens nothing and knows no framework."""
