/*
 * 617712b: the first fix. It overrides xen_extra_version, so /sys/hypervisor/version/extra in dom0
 * shows which payload runs, and introduces local symbols of the names a real fix had.
 */
#include "livepatch.h"

static int get_fpu_calls;

LOCAL int _get_fpu(int type)
{
    get_fpu_calls++;
    return type & 7;
}

LOCAL int lp_helper(int value) /* from a file that is new in the patch: no file# prefix */
{
    return value + 1;
}

static char extra_version[] = "-617712b.0";

const char *xen_extra_version(void)
{
    extra_version[sizeof(extra_version) - 2] = '0' + lp_helper(_get_fpu(get_fpu_calls));
    return extra_version;
}

OVERRIDE(xen_extra_version);
