"""The sentence templates of the micro-world, as data.

A word in braces is a slot; ``|`` stands before the word that a prompt asks for. A template without ``|`` is text to
read, never a question.
"""
