"""The three signals of a write, each made from the redacted event alone."""
