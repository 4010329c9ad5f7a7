/* COPY: a variable that the hypervisor has, too. Else: a hook that changes it, and shows both. */
#include "livepatch.h"

#ifdef COPY
static unsigned int build_id_len;

unsigned int *lp_copy(void)
{
    return &build_id_len;
}
#else
extern unsigned int build_id_len;
extern unsigned int *lp_copy(void);

static void look(void)
{
    *lp_copy() += 7;
    printk("copy %u, hypervisor %u\n", *lp_copy(), build_id_len);
}

HOOK(load, look);
#endif
