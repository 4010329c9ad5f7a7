/* Faults in a static function, once: the crash banner itself calls xen_extra_version. */
#include "livepatch.h"

/* An instruction that no machine has, and that is not one of those that Xen itself uses for BUG(). */
#if defined(__x86_64__)
#define FAULT "ud2"
#elif defined(__aarch64__)
#define FAULT ".inst 0x00000123"
#else
#define FAULT ".inst 0xe7f001f5"
#endif

static int calls;

LOCAL int _get_fpu(int type)
{
    if (calls++ == 0)
        asm volatile(FAULT);
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
