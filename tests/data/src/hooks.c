/* A payload that patches no function: it only runs when it is loaded. */
#include "payload.h"

static int loaded NAME("hooks.c#loaded") = 3;
static void on_load(void) NAME("hooks.c#on_load");

static NOIPA void on_load(void) { loaded = hv_print("on_load", hv_domain(loaded)); }

typedef void hook(void);
extern hook *const livepatch_load_data_on_load;
__attribute__((weak, used, section(".livepatch.hooks.load"))) hook *const
    livepatch_load_data_on_load = on_load;
