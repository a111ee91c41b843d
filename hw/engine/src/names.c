/* SPDX-License-Identifier: Apache-2.0 */
#include "gw_engine.h"

const char *gw_drop_name(unsigned int reason)
{
	static const char *const names[] = {[GW_DROP_NONE] = "",
#define GW_X(name, text) [GW_DROP_##name] = text,
					    GW_DROP_REASONS(GW_X)
#undef GW_X
	};

	return reason < GW_DROP_REASON_COUNT ? names[reason] : "";
}
