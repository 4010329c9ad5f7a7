/* Lets Xen print the name of a static function the way it does in a trace. */
#include "livepatch.h"

static int calls;

LOCAL void FUNCTION(void)
{
    calls++;
}

const char *xen_extra_version(void)
{
    FUNCTION();
    printk(NAME ": %ps\n", FUNCTION);
    return "-shown";
}

OVERRIDE(xen_extra_version);
