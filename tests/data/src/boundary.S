/* A label at the end of one section has the address of the function that begins the next one. */
#ifdef __LP64__
#define PTR .quad
#else
#define PTR .long
#endif

    .section .text.boundary_a, "ax", %progbits
    .balign 16
"edge.c#first":
    .zero 16
"edge.c#end_of_first":

    .section .text.boundary_b, "ax", %progbits
    .balign 16
    .type "edge.c#patched", %function
"edge.c#patched":
    .zero 8
"edge.c#inside":
    .zero 8

    .section .livepatch.strings, "a", %progbits
.Lname:
    .asciz "edge.c#patched"

    .section .livepatch.funcs, "aw", %progbits
    PTR .Lname
    PTR "edge.c#patched"
    PTR 0
    .long 8, 16
    .byte FUNCS_VERSION
    .zero 31
#if FUNCS_VERSION == 2
    .zero 40
#endif

    .section .note.GNU-stack, "", %progbits
