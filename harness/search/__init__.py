"""The attacker's hyper-parameter search (design.md §4): spaces, trials, and what the record keeps of them."""
