/* What a payload's sources share: the loader's structure and how to name a symbol. */
#include <stdint.h>

/* gcc copies an assembler name as it is, so `#` needs the quotes; clang quotes by itself. */
#ifdef __clang__
#define NAME(string) __asm__(string)
#define NOIPA __attribute__((noinline))
#else
#define NAME(string) __asm__("\"" string "\"")
#define NOIPA __attribute__((noipa))
#endif
#define USED __attribute__((used))

/* No GOT: Xen's loader knows absolute and PC-relative relocations only. */
#pragma GCC visibility push(hidden)

struct livepatch_func {
    const char *name;
    void *new_addr;
    void *old_addr;
    uint32_t new_size;
    uint32_t old_size;
    uint8_t version;
    uint8_t opaque[31];
#if FUNCS_VERSION == 2
    uint8_t applied;
    uint8_t pad[7];
    uint8_t expect[32];
#endif
};

/* `aligned` also keeps the compiler from aligning more, which would tear holes into the array. */
#define FUNCS USED __attribute__((section(".livepatch.funcs"), aligned(sizeof(void *))))
#define FUNC(old, new) {.name = old, .new_addr = (void *)(new), .old_size = 16, .version = FUNCS_VERSION}

#define NOTE(section, byte)                                                                  \
    __asm__(".pushsection " section ",\"a\",%note\n\t.long 4, 20, 3\n\t.asciz \"GNU\"\n\t" \
            ".fill 20, 1, " #byte "\n\t.popsection")

extern int hv_print(const char *text, int number);            /* UND */
extern int hv_domain(int number) NAME("domain.c#hv_domain"); /* UND, file#name */
