"""What there is to tell, laid out for people: tables and trees of the terminal."""
