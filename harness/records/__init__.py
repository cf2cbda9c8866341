"""What a finished cell leaves: the record, its items and their files, read strictly, checked and merged."""
