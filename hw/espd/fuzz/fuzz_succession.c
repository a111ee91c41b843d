/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer's target for what a new espd believes of the one whose place it takes (succession.h). An
 * input is all that the other one says, ahead of being asked, and then it hangs up: a list of records,
 * each a struct said and so many bytes behind the header that is made of it. Descriptors are real ones,
 * of the right kind or not, and none waits, as those of an espd. What is opened is closed after each input, and no device is.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "succession.h"

/* Of the pool that seeds are about: 1024 frames of 4096 bytes. */
#define POOL_BYTES (1024u * 4096u)
#define KINDS      (GW_SUCCESSION_GO + 1)
#define ROOM_BYTES (16 << 20)

struct said {
	uint16_t bytes; /* behind the header, as far as the input has them */
	uint8_t kind;
	uint8_t first; /* which of `sources` descriptor 0 is; then by turns */
	uint32_t descriptors;
} __attribute__((packed));

enum {
	MEMORY,
	DATAGRAMS,
	RECORDS,
	FILES
};

/* An espd that does not take over ends at once, and frees nothing. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

static int sources[FILES + 1];
static int last_fd;
static union {
	struct gw_succession_header header;
	uint8_t bytes[sizeof(struct gw_succession_header) + UINT16_MAX];
} record;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	int pair[2];

	(void)argc;
	(void)argv;
	sources[MEMORY] = memfd_create("pool", MFD_CLOEXEC);
	sources[DATAGRAMS] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	sources[FILES] = memfd_create("file", MFD_CLOEXEC);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) ||
	    ftruncate(sources[MEMORY], POOL_BYTES))
		abort();
	sources[RECORDS] = pair[0];
	last_fd = dup(pair[1]);
	return 0;
}

/* Say one record, with a descriptor for each bit; false where there is no more room. */
static bool say(struct gw_succession *talk, const struct said *said)
{
	int fds[GW_SUCCESSION_DESCRIPTORS];

	for (unsigned int i = 0; i < GW_SUCCESSION_DESCRIPTORS; i++)
		fds[i] = said->descriptors >> i & 1 ? sources[(said->first + i) % (FILES + 1)] : -1;
	record.header.kind = said->kind % KINDS;
	record.header.bytes = (uint32_t)sizeof(record.header) + said->bytes;
	return gw_succession_put(talk, &record, fds, GW_SUCCESSION_DESCRIPTORS);
}

static void say_all(struct gw_succession *talk, const uint8_t *data, size_t size)
{
	struct said said;

	while (size >= sizeof(said)) {
		memcpy(&said, data, sizeof(said));
		data += sizeof(said);
		size -= sizeof(said);
		if (said.bytes > size)
			said.bytes = (uint16_t)size;
		memcpy(record.bytes + sizeof(record.header), data, said.bytes);
		data += said.bytes;
		size -= said.bytes;
		if (!say(talk, &said))
			return;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct gw_succession other;
	static struct gw_control control;
	char why[GW_REASON_BYTES];
	int ends[2], listener = -1, room = ROOM_BYTES;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		abort();
	setsockopt(ends[0], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	other.connection = ends[0];
	say_all(&other, data, size);
	shutdown(ends[0], SHUT_WR);
	memset(&control, 0, sizeof(control));
	if (gw_control_init(&control))
		abort();
	/* Who refuses says why, or a promise is broken. */
	if (!gw_take_over(&control, ends[1], &listener, why) && !memchr(why, 0, sizeof(why)))
		abort();
	gw_control_end(&control);
	if (close_range((unsigned int)last_fd + 1, ~0u, 0))
		abort();
	return 0;
}
