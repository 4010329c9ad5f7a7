/* What a payload needs to know about Xen: our own declarations, written from the documented ABI. */
#pragma GCC visibility push(hidden) /* else the compiler goes through a GOT, which Xen refuses */

typedef __UINT8_TYPE__ u8;
typedef __UINT32_TYPE__ u32;

/* struct livepatch_func as the hypervisor reads it: payload version 2, 104 bytes on 64-bit. */
struct livepatch_func {
    const char *name;  /* the function to override; Xen looks its address up by this name */
    void *new_addr;    /* its replacement in this payload */
    void *old_addr;    /* 0: look it up */
    u32 new_size;
    u32 old_size;      /* Xen checks that the jump fits */
    u8 version;
    u8 opaque[31];
    u8 applied;
    u8 pad[7];
    u8 expect[32];     /* optional check of the old code: not used */
};

/* Old code is at least as long as the 5-byte jump; 12 is what xen_extra_version has. */
#define ENTRY(old, replacement, size)                                                              \
    {.name = (old), .new_addr = (void *)(replacement), .new_size = 16, .old_size = (size),         \
     .version = 2}
#define ENTRIES static struct livepatch_func __attribute__((used, section(".livepatch.funcs")))
#define OVERRIDE_SIZED(old, replacement, size)                                                     \
    ENTRIES livepatch_entry_##old = ENTRY(#old, replacement, size)
#define OVERRIDE(old) OVERRIDE_SIZED(old, old, 12)
/* Several, as OVERRIDES = {ENTRY(...), ENTRY(...)}: one by one the compiler leaves gaps between them. */
#define OVERRIDES ENTRIES livepatch_entry_all[]

/* A function that Xen calls when the payload is applied (load) or reverted (unload). */
#define HOOK(when, function)                                                                       \
    static void (*const livepatch_entry_##when)(void)                                              \
        __attribute__((used, section(".livepatch.hooks." #when))) = function

#define LOCAL static __attribute__((noipa)) /* really called: not inlined, cloned or renamed */

extern int printk(const char *format, ...);
