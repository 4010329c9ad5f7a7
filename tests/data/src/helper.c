/* A file that is new in the patch: its locals have no prefix. */
#include "payload.h"

static int calls NAME("calls.3") = 5;
static USED const char function[] NAME("__func__.2") = "lp_helper";

static int cold(int) NAME("lp_new_entry.cold");
static int emulate_retry(int); /* the tail of x86_emulate.c#emulate_retry */

static NOIPA int emulate_retry(int x) { return x + calls; }

static NOIPA int lp_helper(int x)
{
    calls++;
    return hv_print(function, emulate_retry(x));
}

static NOIPA int cold(int x) { return hv_print("cold", x); }

int lp_new_entry(int x);
NOIPA int lp_new_entry(int x) { return x > 100 ? cold(x) : lp_helper(x); }

static NOIPA void lp_load(void) { lp_new_entry(200); }

typedef void hook(void);
extern hook *const livepatch_load_data_lp_load;
__attribute__((weak, used, section(".livepatch.hooks.load"))) hook *const
    livepatch_load_data_lp_load = lp_load;
