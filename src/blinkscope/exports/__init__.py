"""What a run holds, in the forms that other tools read. Everything comes from the run file; no model is loaded."""
