"""The leaderboard as one self-contained HTML file. Needs the extra `report`."""
