"""Many generations in one run: each has a number, its own draws and record, and a finding at the end."""
