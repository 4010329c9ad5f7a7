"""What a payload does, and what changes for a host from one to the next, as values without words.

`inventory` is about one payload, `compare` about two. Both read a payload through `subject`, which knows its original
names, and `identity`, which says what a place in it is, whatever its name and address.
"""
