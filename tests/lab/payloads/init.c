/* A hook that looks into the hypervisor's init memory, which is freed after boot. */
#include "livepatch.h"

extern const volatile char _sinittext[];

static void look(void)
{
    printk("init memory begins with %x\n", _sinittext[0]);
}

HOOK(load, look);
