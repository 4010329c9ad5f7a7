/* Assembler: symbols without a type, absolute ones, a func entry by section symbol plus addend. */
#ifdef __LP64__
#define PTR .quad
#define PTR_SIZE 8
#else
#define PTR .long
#define PTR_SIZE 4
#endif

#if defined(__x86_64__)
#define RETURN lea 7(%rdi), %eax; ret
#elif defined(__aarch64__)
#define RETURN add w0, w0, #7; ret
#elif defined(__arm__)
#define RETURN add r0, r0, #7; bx lr
#endif

    .set "traps.c#TRAP_MAX", 19
    .set "traps.c#TRAP_MIN", 3

    .section .text.entry, "ax", %progbits
    .balign 16
#ifdef __arm__
    .arm
#endif
"traps.c#entry_pad":
    RETURN
    .balign 16
"traps.c#do_entry_alias":
    .type "traps.c#do_entry", %function
"traps.c#do_entry":
    RETURN
    .size "traps.c#do_entry", . - "traps.c#do_entry"

    .section .livepatch.strings, "a", %progbits
.Lname:
    .asciz "traps.c#do_entry"

    .section .livepatch.funcs, "aw", %progbits
    .balign PTR_SIZE
    PTR .Lname
    PTR .text.entry + 16
    PTR 0
    .long 8, 16
    .byte FUNCS_VERSION
    .zero 31
#if FUNCS_VERSION == 2
    .zero 40
#endif

    .section .note.GNU-stack, "", %progbits
