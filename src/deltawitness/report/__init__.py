"""Text output of the commands: tables and trees."""
