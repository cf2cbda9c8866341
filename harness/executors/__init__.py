"""Where jobs run: in this process, in local processes, on a Ray cluster. `harness.planning` says what runs when."""
