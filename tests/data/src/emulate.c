/* A file of the hypervisor that the patch changes: its locals are called x86_emulate.c#NAME. */
#include "payload.h"

/* The build makes this one LOCAL and undefined or absolute: a hypervisor local that is used. */
__attribute__((section(".bss.placeholder"))) int hv_paused NAME("domain.c#hv_paused");

static unsigned int get_fpu_calls NAME("x86_emulate.c#get_fpu_calls");
static int once NAME("x86_emulate.c#once_.3") = 1;
static USED const char function[] NAME("x86_emulate.c#__func__.1804289383") = "_get_fpu";

static int _get_fpu(int) NAME("x86_emulate.c#_get_fpu");
static int emulate_retry(int) NAME("x86_emulate.c#emulate_retry");
static int read_ulong(int) NAME("arch/x86/x86_emulate.c#read_ulong");
int x86_emulate(int) NAME("x86_emulate.c#x86_emulate"); /* made LOCAL after the compiler */

static NOIPA int _get_fpu(int x)
{
    get_fpu_calls += x;
    if (once)
        once = hv_print(function, x);
    return get_fpu_calls;
}

static NOIPA int emulate_retry(int x) { return hv_domain(_get_fpu(x)); }

static NOIPA int read_ulong(int x) { return _get_fpu(x) - 1; }

int gnttab_map_frame_begin(int x);
NOIPA int gnttab_map_frame_begin(int x) { return x * 3 + emulate_retry(x); }

NOIPA int x86_emulate(int x)
{
    if (x < 0)
        return hv_paused; /* never in the test program: its address may not be real there */
    return hv_print("x86_emulate", gnttab_map_frame_begin(x));
}

int x86_emulate_wrapper(int x);
NOIPA int x86_emulate_wrapper(int x) { return hv_print("x86_emulate_wrapper", x86_emulate(x)); }

static FUNCS struct livepatch_func livepatch_emulate[] = {
    FUNC("x86_emulate.c#x86_emulate", x86_emulate),
    FUNC("x86_emulate_wrapper", x86_emulate_wrapper),
    FUNC("arch/x86/x86_emulate.c#read_ulong", read_ulong),
};
