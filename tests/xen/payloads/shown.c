/* Lets Xen print the name of a static function the way it does in a trace. */
#include "livepatch.h"

static int calls;

LOCAL void FUNCTION(void)
{
    calls++;
}

LOCAL void show(void)
{
    FUNCTION();
    printk(NAME ": %ps\n", FUNCTION);
}

HOOK(load, show);
