"""Detection by likelihood ratio: was this text written, or provoked, as another model would have it?"""
