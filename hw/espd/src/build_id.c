/* SPDX-License-Identifier: Apache-2.0 */
#include "build_id.h"

#include <link.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "gw_control.h"

#define ALIGNED(bytes) (((size_t)(bytes) + 3) & ~(size_t)3)

static void write_hex(char *to, const uint8_t *id, size_t bytes)
{
	for (size_t i = 0; i < bytes && 2 * i + 2 < GW_BUILD_BYTES; i++)
		snprintf(to + 2 * i, 3, "%02x", id[i]);
}

static void read_notes(const uint8_t *at, size_t bytes, char *to)
{
	while (bytes >= sizeof(ElfW(Nhdr))) {
		const ElfW(Nhdr) *note = (const void *)at;
		size_t whole = sizeof(*note) + ALIGNED(note->n_namesz) + ALIGNED(note->n_descsz);

		if (whole > bytes)
			return;
		if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 &&
		    memcmp(note + 1, "GNU", 4) == 0)
			write_hex(to, at + sizeof(*note) + 4, note->n_descsz);
		at += whole;
		bytes -= whole;
	}
}

/* The first object is the executable. */
static int look(struct dl_phdr_info *info, size_t bytes, void *to)
{
	(void)bytes;
	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_NOTE)
			read_notes((const uint8_t *)info->dlpi_addr + info->dlpi_phdr[i].p_vaddr,
				   info->dlpi_phdr[i].p_memsz, to);
	return 1;
}

void gw_build_id(char *to)
{
	memset(to, 0, GW_BUILD_BYTES);
	dl_iterate_phdr(look, to);
}
