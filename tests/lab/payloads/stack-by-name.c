/* Stands on a and refers to it by nothing but the name of the function that it overrides. */
#include "livepatch.h"

LOCAL const char *who(void)
{
    return "n";
}

OVERRIDES = {
    ENTRY("x86_emulate.c#who", who, 8),
};
