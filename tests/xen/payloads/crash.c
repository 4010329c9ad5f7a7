/* Faults in a static function, once: the crash banner itself calls xen_extra_version. */
#include "livepatch.h"

static int calls;

LOCAL int _get_fpu(int type)
{
    if (calls++ == 0)
        asm volatile("ud2");
    return type & 7;
}

LOCAL int lp_helper(int type)
{
    return _get_fpu(type) + 1; /* not a tail call: both functions are in the call trace */
}

const char *xen_extra_version(void)
{
    return lp_helper(calls) > 1 ? "-crash" : "-calm";
}

OVERRIDE(xen_extra_version);
