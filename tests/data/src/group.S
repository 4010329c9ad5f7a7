/* A COMDAT group whose signature is a LOCAL symbol: its name is part of what the group means. */
    .section .rodata.group, "aG", %progbits, "group.c#signature", comdat
    .type "group.c#signature", %object
"group.c#signature":
    .long 1
    .size "group.c#signature", 4
    .type "group.c#member", %object
"group.c#member":
    .long 2
    .size "group.c#member", 4

    .section .note.GNU-stack, "", %progbits
