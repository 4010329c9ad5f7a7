/* The two depends sections as part of an object, for payloads that no objcopy touches. */
#include "payload.h"

NOTE(".livepatch.depends", 0xdd);
NOTE(".livepatch.xen_depends", 0xee);
