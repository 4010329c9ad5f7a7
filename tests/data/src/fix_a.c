/* One of two files with a fix_check.constprop.0 (a static function of a header, say). */
#include "payload.h"

static int fix_check(int) NAME(PREFIX_A "fix_check.constprop.0");

static NOIPA int fix_check(int x) { return hv_print("fix_check", x ^ 5); }

int rtc_update_irq(int x);
NOIPA int rtc_update_irq(int x) { return fix_check(x) + 1; }

static FUNCS struct livepatch_func livepatch_fix_a NAME(PREFIX_A "livepatch_fix") =
    FUNC("rtc_update_irq", rtc_update_irq);
