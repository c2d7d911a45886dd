"""Language models behind a server: one file per kind of server, and what all of them share."""
