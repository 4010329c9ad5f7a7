"""What a payload does, and what a host goes through from one to the next: values without words.

`inventory` is one payload, `compare` two. Both see a payload through `subject`, which knows its original names, and
`identity`, which says what a place in it is, whatever it is called and wherever it lies.
"""
