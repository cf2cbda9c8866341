"""Attacks: each module is one adversary who tries to fine-tune a released model. They use the harness's public API."""
