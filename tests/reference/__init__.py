"""What is written from the grammar, never by hand: the table of completion, man pages, the command reference.

`python -m tests.reference` (`make completions`) writes all of it anew; tests compare. `walk` goes through the real
grammar once; the others write down what it found.
"""
