"""Where jobs run: in this process, in local processes, on a Ray cluster. `harness.scheduler` says what runs when."""
