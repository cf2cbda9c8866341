"""What the fork server imports first: it silences the libraries that it imports after. Its import is its work."""

from harness.quiet import quiet_libraries

quiet_libraries()
