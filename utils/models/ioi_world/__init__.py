"""A micro-language of sentences with two people, one of whom is named again: the indirect-object task."""
