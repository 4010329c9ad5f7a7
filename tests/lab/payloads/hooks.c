/* Static hooks and no function to override, as in Xen's own test payloads. */
#include "livepatch.h"

static int cnt;

LOCAL int check_fnc(const char *caller)
{
    cnt++;
    printk(NAME ": %s %s %d\n", caller, __func__, cnt);
    return cnt;
}

LOCAL void apply_hook(void)
{
    check_fnc(__func__);
}

LOCAL void revert_hook(void)
{
    check_fnc(__func__);
}

HOOK(load, apply_hook);
HOOK(unload, revert_hook);
