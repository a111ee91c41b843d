/* SPDX-License-Identifier: Apache-2.0 */
/* Which build this is. */
#ifndef GW_BUILD_ID_H
#define GW_BUILD_ID_H

/**
 * gw_build_id() - write the build id that the linker gave this executable, in hex.
 * @to: GW_BUILD_BYTES, with its end; empty where there is none.
 */
void gw_build_id(char *to);

#endif
