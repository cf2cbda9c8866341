"""From items to the numbers of a record and a ranking (design.md §4), and whether an attack counts."""
