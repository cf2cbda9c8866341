"""Leaderboards: records in, tables and pages out. Knows records only and imports no torch."""
