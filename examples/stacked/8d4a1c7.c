/*
 * 8d4a1c7: a fix that stands on 617712b (its --depends is 617712b's build-id) and was built against
 * its sources. It fixes a function that 617712b introduced, by that function's name, and uses two
 * other names of 617712b's: once 617712b is mangled, Xen finds none of them.
 */
#include "livepatch.h"

extern int get_fpu_calls;        /* 617712b's variable, static there */
extern int lp_helper(int value); /* 617712b's function, static there */

LOCAL int _get_fpu(int type)
{
    get_fpu_calls += 2;
    return type & 7;
}

static char extra_version_2[] = "-8d4a1c7.0";

const char *xen_extra_version(void) /* 617712b overrides it too */
{
    extra_version_2[sizeof(extra_version_2) - 2] = '0' + lp_helper(_get_fpu(get_fpu_calls));
    return extra_version_2;
}

OVERRIDES = {
    ENTRY("xen_extra_version", xen_extra_version, 12),
    ENTRY("x86_emulate.c#_get_fpu", _get_fpu, 13),
};
