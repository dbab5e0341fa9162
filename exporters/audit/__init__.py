"""What is really inside an artifact, read from its files: a reader for each format, and the rules over what they find."""
