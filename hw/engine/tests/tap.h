/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Test Anything Protocol: a line per check, the plan at the end, exit status 1 after any
 * failure.
 */
#ifndef GW_TAP_H
#define GW_TAP_H

#include <stdbool.h>
#include <stdio.h>

static unsigned int tap_checks, tap_failures;

static inline bool tap_check(bool good, const char *name)
{
	printf("%sok %u - %s\n", good ? "" : "not ", ++tap_checks, name);
	tap_failures += !good;
	return good;
}

static inline int tap_end(void)
{
	printf("1..%u\n", tap_checks);
	return tap_failures != 0;
}

#endif
