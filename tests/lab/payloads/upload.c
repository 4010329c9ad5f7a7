/* What the defects of tests/lab/defects.py are put into: one of each kind of symbol and relocation. */
#include "livepatch.h"

static int calls; /* .bss */
int lp_data = 5;  /* .data, GLOBAL */

LOCAL int helper(int value)
{
    calls += value;
    return calls;
}

LOCAL int other(int value)
{
    return helper(value) + lp_data;
}

const char *xen_extra_version(void)
{
    if (other(lp_data) < 0)
        printk("never\n");
    return "-upload";
}

OVERRIDE(xen_extra_version);
