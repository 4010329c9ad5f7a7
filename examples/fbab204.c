/*
 * fbab204: the cumulative successor of 617712b. It contains the first fix again, hence the same
 * local symbols, and one more: Xen refuses it while 617712b is loaded, unless they are renamed.
 */
#include "livepatch.h"

static int get_fpu_calls;

LOCAL int _get_fpu(int type)
{
    get_fpu_calls++;
    return type & 3;
}

LOCAL int _put_fpu(int type)
{
    return type ^ 1;
}

LOCAL int lp_helper(int value) /* from a file that is new in the patch: no file# prefix */
{
    return value + 1;
}

static char extra_version[] = "-fbab204.0";

const char *xen_extra_version(void)
{
    extra_version[sizeof(extra_version) - 2] =
        '0' + lp_helper(_put_fpu(_get_fpu(get_fpu_calls)));
    return extra_version;
}

OVERRIDE(xen_extra_version);
