"""The papers' theory as code: what figures and theorems say, computed exactly at the size of a toy (docs/theory.md)."""
