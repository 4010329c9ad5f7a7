/* Overrides xen_extra_version with VERSION, by way of a static function that every build has. */
#include "livepatch.h"

#ifdef NEW_GLOBALS
__attribute__((noipa)) int lp_frame_begin(int type)
{
    return type & 7;
}

__attribute__((weak)) int livepatch_load_data_x86 = 1;
#endif

static int get_fpu_calls;

LOCAL int _get_fpu(int type)
{
    get_fpu_calls++;
#ifdef NEW_GLOBALS
    type = lp_frame_begin(type) + livepatch_load_data_x86;
#endif
    return type & 7;
}

#ifdef LOCAL_OVERRIDE /* as for a static function of Xen: the overriding symbol is LOCAL */
LOCAL const char *extra_version(void)
#else
const char *xen_extra_version(void)
#endif
{
    _get_fpu(get_fpu_calls);
    return VERSION;
}

#ifdef LOCAL_OVERRIDE
OVERRIDE_SIZED(xen_extra_version, extra_version, 12);
#else
OVERRIDE(xen_extra_version);
#endif
